"""Config keys of this project, and the way from a file and overrides to one frozen config.

    load_config = Detectron2's defaults + our keys + file + overrides -> finalize_config -> freeze

Nothing here is imported by `ops`, `evaluation` or `paper`; classes take plain values and only their
`from_config` reads a `CfgNode`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .errors import UsageError
from .resources import configs_dir

if TYPE_CHECKING:
    from detectron2.config import CfgNode

DETECTRON2_MISSING = (
    "Detectron2 is not installed in this environment. Install the official build, or the "
    "pure-Python one of this project: `pip install ./third_party/detectron2` in its checkout."
)


def require_detectron2() -> None:
    """Say how to install Detectron2 where it is missing (UsageError)."""
    if find_spec("detectron2") is None:
        raise UsageError(DETECTRON2_MISSING)


def add_mask_rcnn_ext_config(cfg: CfgNode) -> None:
    """Add this project's keys. With their defaults Detectron2 behaves as it does without us."""
    for head in ("ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD"):
        # How a bin's samples become one value: "ave", "max", or "" for the op's own (max for
        # RoIPool, ave for the others). Table 2c. For our RoI heads (MaskRCNNROIHeads, ...Res5...).
        cfg.MODEL[head].POOLER_AGGREGATION = ""
    # What computes RoI features: "torch", "triton" (a GPU's kernel) or "auto".
    cfg.MODEL.ROI_HEADS.POOLER_BACKEND = "auto"
    # Non-maximum suppression of detections: "hard" (the paper's, Detectron2's), or boxes that
    # overlap lose score: "soft_linear" (beyond NMS_THRESH_TEST), "soft_gaussian" (with SIGMA).
    cfg.MODEL.ROI_HEADS.NMS = "hard"
    cfg.MODEL.ROI_HEADS.SOFT_NMS_SIGMA = 0.5
    # Mask loss: "sigmoid", a binary loss for each class, or "softmax", where the classes and a
    # background compete for each pixel. Table 2b.
    cfg.MODEL.ROI_MASK_HEAD.LOSS = "sigmoid"
    # Widths of MLPMaskHead's hidden layers. Table 2e has two of them and three.
    cfg.MODEL.ROI_MASK_HEAD.FC_DIMS = [1024, 1024]
    # Side m of the predicted masks, in mask cells; 0 is twice the side of the head's input
    # (14 in the C4 form, 28 in the FPN form, as in figure 4).
    cfg.MODEL.ROI_MASK_HEAD.RESOLUTION = 0
    # In training, at most this many positive RoIs of an image enter the mask branch; 0 is all.
    # For crowds on a small GPU; the paper has no such limit.
    cfg.MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE = 0
    # Use only the first N annotated images of each data set, training and test alike; 0 uses all.
    # For smoke runs and for the overfitting proof, never for a figure to quote.
    cfg.DATASETS.MAX_IMAGES = 0
    # YAMLs of data sets, or folders of them, that are registered before names are looked up;
    # relative to the working directory. docs/datasets.md.
    cfg.DATASETS.REGISTRY = []
    # Look at the annotation files before training, and stop at what would fail later or be learned
    # wrongly. False takes them as they are.
    cfg.DATASETS.CHECK = True
    # "SGD" is Detectron2's and the paper's; "AdamW" learns faster from scratch in a short schedule
    # (BASE_LR is then about 0.001).
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Boundary AP (Cheng et al. 2021) beside COCO's mask AP; about a minute for 5,000 images.
    cfg.TEST.BOUNDARY_AP = False
    # What computes COCO's figures: "auto" (the fastest that gives pycocotools' arrays), "hotcoco",
    # or "pycocotools", the referee.
    cfg.TEST.COCO_BACKEND = "auto"
    # Write Cityscapes' submission format, too: OUTPUT_DIR/inference/<set>/submission. COCO's is
    # the file of detections itself.
    cfg.TEST.CITYSCAPES_SUBMISSION = False
    # Processes that turn predicted masks into run lengths while the model goes on; -1 is none on a
    # CPU and two with a GPU.
    cfg.TEST.ENCODING_PROCESSES = -1
    # Exit with 0 although some test images could not be used. They are left out, named and counted
    # in any case.
    cfg.TEST.ALLOW_FAILED_IMAGES = False
    # How many test images to draw, ground truth beside prediction, into OUTPUT_DIR/samples.png
    # after the final evaluation; 0 draws none.
    cfg.TEST.SAMPLE_PICTURES = 0
    # Detections below this score (0 to 1) are left out of samples.png. It has no part in AP.
    cfg.TEST.SAMPLE_SCORE_THRESH = 0.5
    from .data.input_keys import add_input_keys
    from .engine.config_keys import add_engine_keys

    add_input_keys(cfg)
    add_engine_keys(cfg)


def load_config(config_file: str | Path | None, opts: Sequence[str] = ()) -> CfgNode:
    """Defaults, then a YAML file, then overrides, finalized and frozen.

    Args:
        config_file: path of a YAML; when there is no such file, the same path below the configs
            that come with the package (`COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml`, a
            leading `configs/` is ignored). None or "": defaults only.
        opts: `KEY VALUE KEY VALUE ...`, as on the command line
    Raises:
        UsageError: no such file, unknown key (its nearest neighbours are named), value of a wrong
            type, values that contradict each other
    """
    try:
        from detectron2.config import get_cfg
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        raise UsageError(DETECTRON2_MISSING) from error

    cfg = get_cfg()
    add_mask_rcnn_ext_config(cfg)
    if config_file:
        _merge_file(cfg, find_config(config_file))
    _merge_overrides(cfg, list(opts))
    finalize_config(cfg)
    cfg.freeze()
    return cfg


def find_config(config_file: str | Path) -> Path:
    """The YAML at this path, or the one of that name among the package's own configs."""
    given = Path(config_file).expanduser()
    if given.is_file():
        return given
    parts = given.parts[1:] if given.parts[:1] == ("configs",) else given.parts
    packaged = configs_dir().joinpath(*parts)
    if not given.is_absolute() and packaged.is_file():
        return packaged
    known = {str(p.relative_to(configs_dir())) for p in configs_dir().rglob("*.yaml")}
    near = difflib.get_close_matches(str(Path(*parts)), known, n=3, cutoff=0.5)
    hint = "; did you mean " + " or ".join(f"configs/{n}" for n in near) + "?" if near else ""
    raise UsageError(f"config file {config_file} does not exist{hint}")


def names_key(config_file: str | Path | None, opts: Sequence[str], key: str) -> bool:
    """Whether the config file, its bases included, or the overrides give this key a value."""
    if key in opts[0::2]:
        return True
    if not config_file:
        return False
    from detectron2.config import get_cfg

    loaded = get_cfg().load_yaml_with_base(str(find_config(config_file)), allow_unsafe=False)
    return key in dict(flatten(loaded))


def finalize_config(cfg: CfgNode) -> None:
    """Check, between merging and freezing, what would otherwise fail deep inside a run.

    Raises:
        UsageError: with the key, its value and what it may be
    """
    from .data.augmentations.build import build_augmentations, build_copy_paste
    from .engine.config_checks import check_engine_keys
    from .modeling.checks import check_modeling_config

    _check_registry_names(cfg)
    check_modeling_config(cfg)
    check_engine_keys(cfg)
    for is_train in (True, False):
        build_augmentations(cfg, is_train)
    build_copy_paste(cfg, is_train=True)
    for key in ("SOLVER.IMS_PER_BATCH", "SOLVER.MAX_ITER"):
        if _get(cfg, key) < 1:
            raise UsageError(f"{key} is {_get(cfg, key)}, expected at least 1")
    for key in ("DATASETS.MAX_IMAGES", "TEST.SAMPLE_PICTURES"):
        if _get(cfg, key) < 0:
            raise UsageError(f"{key} is {_get(cfg, key)}, expected 0 or more")
    backends = ("auto", "hotcoco", "pycocotools")
    if cfg.TEST.COCO_BACKEND not in backends:
        raise UsageError(
            f"TEST.COCO_BACKEND is {cfg.TEST.COCO_BACKEND!r}, expected one of {', '.join(backends)}"
        )
    if cfg.TEST.BOUNDARY_AP and not cfg.MODEL.MASK_ON:
        raise UsageError("TEST.BOUNDARY_AP is True, but MODEL.MASK_ON False: there are no masks")
    if cfg.TEST.ENCODING_PROCESSES < -1:
        raise UsageError(
            f"TEST.ENCODING_PROCESSES is {cfg.TEST.ENCODING_PROCESSES}, expected -1 or more"
        )
    if cfg.SOLVER.BASE_LR <= 0:
        raise UsageError(f"SOLVER.BASE_LR is {cfg.SOLVER.BASE_LR}, expected more than 0")
    if cfg.MODEL.ROI_HEADS.NUM_CLASSES < 1:
        raise UsageError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}, expected the "
            "number of foreground classes, background not counted"
        )
    precomputed = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals"
    if precomputed != cfg.MODEL.LOAD_PROPOSALS:
        raise UsageError(
            f"MODEL.LOAD_PROPOSALS is {cfg.MODEL.LOAD_PROPOSALS}, but "
            f"MODEL.PROPOSAL_GENERATOR.NAME is {cfg.MODEL.PROPOSAL_GENERATOR.NAME!r}; "
            "PrecomputedProposals goes with True, any other name with False"
        )
    if cfg.INPUT.MASK_FORMAT not in ("polygon", "bitmask"):
        raise UsageError(
            f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}, expected 'polygon' or 'bitmask'"
        )
    if isinstance(cfg.DATASETS.TRAIN, str) or isinstance(cfg.DATASETS.TEST, str):
        raise UsageError(
            "DATASETS.TRAIN and DATASETS.TEST are lists of names; "
            "on the command line write \"('my_set',)\", in a file ('my_set',)"
        )


def _check_registry_names(cfg: CfgNode) -> None:
    from detectron2.modeling import (
        BACKBONE_REGISTRY,
        META_ARCH_REGISTRY,
        PROPOSAL_GENERATOR_REGISTRY,
        ROI_HEADS_REGISTRY,
        ROI_MASK_HEAD_REGISTRY,
    )

    registries = {
        "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
        "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
        "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
        "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
        "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    }
    for key, registry in registries.items():
        name = _get(cfg, key)
        if name in registry or (
            key == "MODEL.PROPOSAL_GENERATOR.NAME" and name == "PrecomputedProposals"
        ):
            continue
        known = ", ".join(sorted(known for known, _ in registry))
        raise UsageError(f"{key} is {name!r}, which nobody has registered; known: {known}")


def _merge_file(cfg: CfgNode, path: Path) -> None:
    try:
        loaded = cfg.load_yaml_with_base(str(path), allow_unsafe=False)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: its _BASE_ {error.filename} does not exist") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a YAML that can be read: {error}") from error
    except (TypeError, AssertionError, OSError) as error:
        raise UsageError(f"{path} is not a config: {error}") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} is not a config: expected keys and values, got {loaded!r}")
    _refuse_unknown_keys(cfg, dict(flatten(loaded)), str(path))
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except (KeyError, ValueError, AssertionError) as error:
        raise UsageError(f"{path}: {_text_of(error)}") from error


def _merge_overrides(cfg: CfgNode, opts: list[str]) -> None:
    keys = opts[0::2]
    for key in keys:
        if key.startswith("-"):
            raise UsageError(f"{key} stands among the config overrides; options go before them")
    if len(opts) % 2:
        raise UsageError(
            f"config overrides come in pairs KEY VALUE; {opts[-1]!r} has no value "
            f"({len(opts)} words in all)"
        )
    _refuse_unknown_keys(cfg, dict(zip(keys, opts[1::2], strict=True)), "command line")
    try:
        cfg.merge_from_list(opts)
    except (KeyError, ValueError, AssertionError) as error:
        raise UsageError(f"command line: {_text_of(error)}") from error


def _refuse_unknown_keys(cfg: CfgNode, given: Mapping[str, Any], source: str) -> None:
    known = dict(flatten(cfg))
    known_nodes = {key.rsplit(".", depth)[0] for key in known for depth in range(1, 6)}
    for key in given:
        if key in known or key in known_nodes:
            continue
        if cfg.key_is_renamed(key) or cfg.key_is_deprecated(key):
            continue
        raise UsageError(f"{source}: unknown config key {key}{_neighbours(key, known)}")


def _neighbours(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key.upper(), known, n=3, cutoff=0.6)
    last = key.upper().rpartition(".")[2]
    # The right name in the wrong section is as common as a slip of the finger.
    near += [k for k in known if k.rpartition(".")[2] == last and k not in near][:3]
    return "; nearest: " + ", ".join(near[:4]) if near else ""


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("SOLVER.BASE_LR", 0.02) and so on for a config or for the content of its YAML."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _get(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return node


def _text_of(error: Exception) -> str:
    # str(KeyError("x")) is "'x'", with quotes that mean nothing to the reader.
    return str(error.args[0]) if error.args else type(error).__name__
