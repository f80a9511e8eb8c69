"""The page about a run: its sections, tables and charts, as HTML and Markdown."""
