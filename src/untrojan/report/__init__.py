"""Results for people and programs: text, JSON, one-file HTML."""

from __future__ import annotations

from untrojan.report.content import NeuronHistogram, ReportContent, TriggerPicture
from untrojan.report.html import render_html
from untrojan.report.json_format import render_json
from untrojan.report.text import print_text, render_text

__all__ = [
    "NeuronHistogram",
    "ReportContent",
    "TriggerPicture",
    "print_text",
    "render_html",
    "render_json",
    "render_text",
]
