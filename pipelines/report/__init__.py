"""The report of a run: page, model card, bill of materials, figures."""
