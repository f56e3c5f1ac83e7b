"""Results for people and programs: text, JSON, one-file HTML."""

from __future__ import annotations

from collections.abc import Callable

from untrojan.report.content import NeuronHistogram, ReportContent, TriggerPicture
from untrojan.report.html import render_html
from untrojan.report.json_format import render_content_json, render_json
from untrojan.report.text import print_text, render_text

FORMATS: dict[str, Callable[[ReportContent], str]] = {
    "text": render_text,
    "json": render_content_json,
    "html": render_html,
}

__all__ = [
    "FORMATS",
    "NeuronHistogram",
    "ReportContent",
    "TriggerPicture",
    "print_text",
    "render_content_json",
    "render_html",
    "render_json",
    "render_text",
]
