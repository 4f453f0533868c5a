"""The verbs of the console command `mask-rcnn-ext`, one module each.

A verb's module has HELP (one line), `add_arguments(parser)` and `run(args) -> exit code`, and
imports what is heavy only inside `run`, so that --help stays quick.
"""
