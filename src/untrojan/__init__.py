"""untrojan: is there a backdoor in a classifier, and if so, make it safe to use."""
