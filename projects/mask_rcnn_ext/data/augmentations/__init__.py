"""Augmentations in Detectron2's interface, and the way from config keys to a list of them.

`copy_paste` works on two samples and is applied by `SampleDataset`; all others are Detectron2
`Augmentation`s, to be mixed with Detectron2's and anyone's own.
"""
