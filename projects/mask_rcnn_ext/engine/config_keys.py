"""Config keys of training, watching and resuming; their defaults change nothing in Detectron2."""

from __future__ import annotations

from detectron2.config import CfgNode


def add_engine_keys(cfg: CfgNode) -> None:
    """Add them to a config that has Detectron2's own."""
    # The batch that BASE_LR, MAX_ITER, STEPS, WARMUP_ITERS, CHECKPOINT_PERIOD and EVAL_PERIOD are
    # written for; with another IMS_PER_BATCH those of them that the command line does not name
    # follow by the linear rule. 0: nothing is derived.
    cfg.SOLVER.REFERENCE_BATCH = 0
    # Split each batch of IMS_PER_BATCH images into so many parts, one after the other, whose
    # gradients are averaged before the step: a large batch on a small GPU.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # With several processes, pad the images of each to the largest of all, as one process does, so
    # that losses do not depend on their number. True costs pixels that are computed in vain (with
    # 8 processes of 2 COCO images a fifth); None is True on a CPU, False on a GPU.
    cfg.DATALOADER.PAD_TO_GLOBAL_BATCH = None
    # Arithmetic of SOLVER.AMP.ENABLED: "float16", "bfloat16", or "auto": float16 on a GPU, as
    # Detectron2, and bfloat16 on a CPU.
    cfg.SOLVER.AMP.PRECISION = "auto"
    # The optimizer's fused form, one kernel for all parameters: None is where torch has it.
    cfg.SOLVER.FUSED = None
    # A loss or gradient that is not finite: "raise" stops the run, "skip" leaves that step out, at
    # most NONFINITE_LIMIT times in a run.
    cfg.SOLVER.ON_NONFINITE = "raise"
    cfg.SOLVER.NONFINITE_LIMIT = 10
    # Keep the newest N of the periodic checkpoints; 0 keeps all. The best one and the final one are
    # kept beside them.
    cfg.SOLVER.CHECKPOINTS_KEPT = 0
    # Stop after so many evaluations (TEST.EVAL_PERIOD) in a row in which TEST.BEST_METRIC was not
    # better than the best by more than MIN_DELTA (in its own unit); 0 never stops.
    cfg.SOLVER.EARLY_STOP_PATIENCE = 0
    cfg.SOLVER.EARLY_STOP_MIN_DELTA = 0.0
    # A moving average of the weights, w' = d w' + (1 - d) w after each step, d being DECAY, in step
    # t at most (1 + t) / (10 + t); evaluations then use it, and it is saved beside the weights.
    cfg.MODEL.EMA = CfgNode()
    cfg.MODEL.EMA.ENABLED = False
    cfg.MODEL.EMA.DECAY = 0.999
    # Weights whose classes are not those of the data: "" refuses them, "by_name" carries over the
    # outputs of classes of the same name and leaves the others at random, "random" leaves all
    # class outputs at random, "as_is" takes them in their order.
    cfg.MODEL.CLASS_TRANSFER = ""
    # Memory order of images and weights: True is channels last, None is True where it is known
    # to be faster.
    cfg.MODEL.CHANNELS_LAST = None
    # torch.compile for the dense parts (backbone, RPN head); needs a C++ compiler.
    cfg.MODEL.COMPILE = False
    # In inference, multiply frozen norms into the convolutions before them: same results to
    # rounding, faster.
    cfg.MODEL.FOLD_NORMS = True
    # Which figure of an evaluation decides on the best checkpoint, "segm/AP" for example (with
    # several test sets "coco_2017_val/segm/AP"), and whether "max" or "min" is best; "" keeps none.
    cfg.TEST.BEST_METRIC = ""
    cfg.TEST.BEST_MODE = "max"
    # The training losses on the test sets too, at each evaluation, as validation/<loss>.
    cfg.TEST.VALIDATION_LOSS = False
    # Arithmetic of inference: "float32", "bfloat16" or "float16".
    cfg.TEST.PRECISION = "float32"
    # Steps between two lines of figures.
    cfg.LOG = CfgNode()
    cfg.LOG.PERIOD = 20
    # Where figures go beside the log, metrics.json and TensorBoard: "wandb", "mlflow".
    cfg.LOG.WRITERS = []
    # Name of the project (W&B) or experiment (MLflow), and of the run; "" is OUTPUT_DIR's name.
    cfg.LOG.PROJECT = "mask_rcnn_ext"
    cfg.LOG.RUN_NAME = ""
