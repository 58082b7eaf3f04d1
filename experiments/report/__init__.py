"""The report of a study's folder: summary, findings, figures, the page, comparisons."""
