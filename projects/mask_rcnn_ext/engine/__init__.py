"""Training and evaluation, built on Detectron2's trainer and hooks."""
