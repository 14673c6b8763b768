"""Build the documentation's site: generated pages, `llms.txt`, and a check of what was built."""
