"""One module per make verb; `python -m scripts.<verb>` runs it."""
