"""Every change made to Detectron2 v0.6, by name; README.md has them as a table.

Paths are below detectron2/ in the wheel. `until` is when an edit can go: as all of them are for one
hash-checked sdist, "newer source" means Detectron2's main branch has the same change already.
"""

from .editing import Edit, Hunk

NEWER_SOURCE = "newer source"
MAIN_LACKS_IT = "newer source, if it comes to have it"


def _alias(name, builtin, **files):
    """Hunks for np.<name> -> <builtin>; a file's path is written with __ for /."""
    return tuple(
        Hunk(f"{path.replace('__', '/')}.py", f"np.{name}", builtin, count)
        for path, count in files.items()
    )


_GUARD = """\
try:
    from detectron2 import _C
except ImportError:
    from detectron2.utils import _compiled as _C
"""

EDITS = (
    Edit(
        "pillow-linear",
        "Image.LINEAR is gone since Pillow 10; BILINEAR is the same filter",
        NEWER_SOURCE,
        (Hunk("data/transforms/transform.py", "interp=Image.LINEAR", "interp=Image.BILINEAR"),),
    ),
    Edit(
        "numpy-aliases",
        "np.int, np.float, np.str are gone since numpy 1.24, np.bool in 1.24 to 1.26",
        NEWER_SOURCE,
        (
            *_alias("int", "int", data__build=2),
            *_alias("str", "str", data__datasets__pascal_voc=1),
            Hunk("evaluation/sem_seg_evaluation.py", "np.int)", "int)", 2),
            Hunk("evaluation/sem_seg_evaluation.py", "np.float)", "float)", 5),
            *_alias("bool", "bool", structures__masks=3, utils__visualizer=3),
            *_alias("bool", "bool", utils__video_visualizer=1),
            *_alias("bool", "bool", evaluation__pascal_voc_evaluation=2),
        ),
    ),
    Edit(
        "numpy-no-copy",
        "numpy 2 refuses np.array(..., copy=False) where a copy is needed",
        NEWER_SOURCE,
        (
            Hunk(
                "layers/mask_ops.py",
                "mask = np.array(mask, copy=False)",
                "mask = np.asarray(mask)",
            ),
        ),
    ),
    Edit(
        "sample-from-list",
        "random.sample refuses a set since Python 3.11, when a mapper rejects a sample",
        NEWER_SOURCE,
        (
            Hunk(
                "data/common.py",
                "self._rng.sample(self._fallback_candidates, k=1)",
                "self._rng.sample(list(self._fallback_candidates), k=1)",
            ),
        ),
    ),
    Edit(
        "export-without-caffe2",
        "Caffe2 is gone from torch: detectron2.export and utils.analysis could not be imported",
        NEWER_SOURCE,
        (
            Hunk(
                "export/__init__.py",
                "from .api import *\n",
                "# .api and what it imports need Caffe2, which torch no longer has.\n",
            ),
        ),
    ),
    Edit(
        "zoo-without-pkg-resources",
        "pkg_resources is gone since setuptools 82",
        MAIN_LACKS_IT,
        (
            Hunk("model_zoo/model_zoo.py", "import pkg_resources\n", ""),
            Hunk(
                "model_zoo/model_zoo.py",
                """\
pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )""",
                'os.path.join(os.path.dirname(__file__), "configs", config_path)',
            ),
        ),
    ),
    Edit(
        "importlib-submodules",
        "importlib.abc, .machinery, .util are used, but only found if something else imported them",
        MAIN_LACKS_IT,
        (
            Hunk(
                "projects/__init__.py",
                "import importlib\n",
                "import importlib.abc\nimport importlib.util\n",
            ),
            Hunk(
                "config/lazy.py",
                "import importlib\n",
                "import importlib.machinery\nimport importlib.util\n",
            ),
            Hunk("utils/collect_env.py", "import importlib\n", "import importlib.util\n"),
        ),
    ),
    Edit(
        "lr-scheduler-class",
        "_LRScheduler is no base of torch's schedulers: theirs were not saved, a resume restarted",
        NEWER_SOURCE,
        (
            Hunk(
                "solver/__init__.py",
                "import WarmupCosineLR, WarmupMultiStepLR, LRMultiplier, WarmupParamScheduler",
                "import (\n    LRMultiplier,\n    LRScheduler,\n    WarmupCosineLR,\n"
                "    WarmupMultiStepLR,\n    WarmupParamScheduler,\n)",
            ),
            Hunk(
                "solver/lr_scheduler.py",
                "    ParamScheduler,\n)\n",
                "    ParamScheduler,\n)\nfrom torch.optim.lr_scheduler import LRScheduler\n",
            ),
            *(
                Hunk(file, "lr_scheduler._LRScheduler", "lr_scheduler.LRScheduler", count)
                for file, count in {
                    "solver/lr_scheduler.py": 4,
                    "solver/build.py": 1,
                    "engine/hooks.py": 2,
                    "projects/deeplab/lr_scheduler.py": 1,
                    "projects/deeplab/build_solver.py": 1,
                }.items()
            ),
        ),
    ),
    Edit(
        "coco-eval-fallback",
        "the compiled COCO evaluator was imported unconditionally; pycocotools' serves as well",
        NEWER_SOURCE,
        (
            Hunk(
                "evaluation/coco_evaluation.py",
                "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n",
                "",
            ),
            Hunk(
                "evaluation/coco_evaluation.py",
                "from .evaluator import DatasetEvaluator\n",
                """\
from .evaluator import DatasetEvaluator

try:
    from .fast_eval_api import COCOeval_opt
except ImportError:  # needs detectron2._C
    COCOeval_opt = COCOeval
""",
            ),
        ),
    ),
    Edit(
        "compiled-on-use",
        "_C was imported unconditionally; what needs it (rotated boxes) now says so on use",
        "built with _C",
        (
            Hunk("layers/roi_align_rotated.py", "from detectron2 import _C\n", _GUARD),
            Hunk("layers/rotated_boxes.py", "from detectron2 import _C\n", _GUARD),
            Hunk(
                "layers/nms.py",
                "from torchvision.ops import nms  # BC-compat\n",
                "from torchvision.ops import nms  # BC-compat\n\n"
                "from detectron2.utils import _compiled\n",
            ),
            Hunk(
                "layers/nms.py",
                "    return torch.ops.detectron2.nms_rotated(",
                """\
    if not torch.jit.is_scripting():
        _compiled.require_op("nms_rotated")
    return torch.ops.detectron2.nms_rotated(""",
            ),
        ),
    ),
    Edit(
        "deform-conv-torchvision",
        "deformable convolution needed _C; torchvision computes the same, also on a CPU",
        "built with _C",
        (
            Hunk(
                "layers/deform_conv.py",
                "import math\n",
                """\
import torch
from torch import nn
from torch.nn.modules.utils import _pair

from ._deform_conv import deform_conv, modulated_deform_conv
""",
                upto="from .wrappers import _NewEmptyTensorOp\n",
            ),
            Hunk(
                "layers/deform_conv.py",
                "class _DeformConv(Function):\n",
                "",
                upto="class DeformConv(nn.Module):\n",
            ),
        ),
    ),
    Edit(
        "launch-on-cpu",
        "several processes needed CUDA: an assertion, NCCL, device_ids",
        "newer source for launch; main still sets device_ids",
        (
            Hunk(
                "engine/launch.py",
                "    assert torch.cuda.is_available(), "
                '"cuda is not available. Please check your installation."\n',
                "    has_gpu = torch.cuda.is_available()\n",
            ),
            Hunk(
                "engine/launch.py",
                'backend="NCCL",',
                'backend="NCCL" if has_gpu else "GLOO",',
            ),
            Hunk(
                "engine/launch.py",
                """\
    assert num_gpus_per_machine <= torch.cuda.device_count()
    torch.cuda.set_device(local_rank)
""",
                """\
    if has_gpu:
        assert num_gpus_per_machine <= torch.cuda.device_count()
        torch.cuda.set_device(local_rank)
""",
            ),
            Hunk(
                "engine/defaults.py",
                '    if "device_ids" not in kwargs:\n',
                """\
    # DistributedDataParallel refuses a device id for a model on a CPU.
    if "device_ids" not in kwargs and any(p.is_cuda for p in model.parameters()):
""",
            ),
        ),
    ),
    Edit(
        "leave-process-group",
        "a process left with its group's threads alive; now and then one aborted it at shutdown",
        MAIN_LACKS_IT,
        (
            Hunk(
                "engine/launch.py",
                "    comm.synchronize()\n\n    main_func(*args)\n",
                """\
    comm.synchronize()

    main_func(*args)
    if dist.is_initialized():
        dist.destroy_process_group()
""",
            ),
        ),
    ),
    Edit(
        "gather-objects",
        "gathering warned of typed storage; torch has object collectives now",
        NEWER_SOURCE,
        (
            Hunk(
                "utils/comm.py",
                "import functools\nimport logging\nimport numpy as np\nimport pickle\n",
                "import functools\nimport numpy as np\n",
            ),
            Hunk(
                "utils/comm.py",
                "def _serialize_to_tensor(data, group):\n",
                "",
                upto="def all_gather(data, group=None):\n",
            ),
            Hunk(
                "utils/comm.py",
                "    tensor = _serialize_to_tensor(data, group)\n\n",
                """\
    output = [None] * dist.get_world_size(group)
    dist.all_gather_object(output, data, group=group)
    return output


""",
                upto="def gather(data, dst=0, group=None):\n",
            ),
            Hunk(
                "utils/comm.py",
                "    tensor = _serialize_to_tensor(data, group)\n",
                """\
    output = [None] * dist.get_world_size(group) if rank == dst else None
    dist.gather_object(data, output, dst=dst, group=group)
    return output or []


""",
                upto="def shared_random_seed():\n",
            ),
        ),
    ),
    Edit(
        "amp-any-device",
        "torch.cuda.amp is deprecated, and AMPTrainer was for CUDA only (a CPU uses bfloat16)",
        MAIN_LACKS_IT,
        (
            Hunk(
                "engine/train_loop.py",
                """\
            from torch.cuda.amp import GradScaler

            grad_scaler = GradScaler()
""",
                """\
            device = next(model.parameters()).device
            grad_scaler = torch.amp.GradScaler(device.type)
""",
            ),
            Hunk(
                "engine/train_loop.py",
                """\
        assert torch.cuda.is_available(), "[AMPTrainer] CUDA is required for AMP training!"
        from torch.cuda.amp import autocast
""",
                "",
            ),
            Hunk(
                "engine/train_loop.py",
                "        with autocast():\n",
                "        with torch.autocast(next(self.model.parameters()).device.type):\n",
            ),
        ),
    ),
    Edit(
        "meshgrid-indexing",
        "torch warns of a meshgrid without indexing, and will change its meaning",
        MAIN_LACKS_IT,
        (
            Hunk(
                "modeling/anchor_generator.py",
                "torch.meshgrid(shifts_y, shifts_x)",
                'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
            ),
            Hunk(
                "projects/panoptic_deeplab/post_processing.py",
                "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n    )",
                "        torch.arange(width, dtype=offsets.dtype, device=offsets.device),\n"
                '        indexing="ij",\n    )',
            ),
        ),
    ),
    Edit(
        "quiet-jit-at-import",
        "torch warns that torch.jit.script is deprecated, on every import of detectron2.modeling",
        "torch.jit is not used",
        (
            Hunk(
                "__init__.py",
                "setup_environment()\n\n\n",
                """\
setup_environment()

import warnings

with warnings.catch_warnings():  # fvcore.nn scripts two functions
    warnings.filterwarnings("ignore", message="`torch.jit.script` is", category=Warning)
    import fvcore.nn
del warnings, fvcore

""",
            ),
            Hunk(
                "modeling/box_regression.py",
                "import math\nfrom typing",
                "import math\nimport warnings\nfrom typing",
            ),
            Hunk("modeling/box_regression.py", "@torch.jit.script\nclass ", "class ", 2),
            Hunk(
                "modeling/box_regression.py",
                "class Box2BoxTransformLinear:\n",
                """\
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`torch.jit.script` is", category=Warning)
    Box2BoxTransform = torch.jit.script(Box2BoxTransform)
    Box2BoxTransformRotated = torch.jit.script(Box2BoxTransformRotated)


class Box2BoxTransformLinear:
""",
            ),
        ),
    ),
    Edit(
        "safe-checkpoints",
        "a .pkl executed code; a .pth or .pyth holding numpy values was refused",
        MAIN_LACKS_IT,
        (
            Hunk(
                "checkpoint/detection_checkpoint.py",
                "import pickle\nimport torch\nfrom fvcore",
                "from fvcore",
            ),
            Hunk(
                "checkpoint/detection_checkpoint.py",
                "from .c2_model_loading import",
                "from ._safe_load import load_pickle, load_torch\nfrom .c2_model_loading import",
            ),
            Hunk(
                "checkpoint/detection_checkpoint.py",
                'pickle.load(f, encoding="latin1")',
                "load_pickle(f)",
            ),
            Hunk("checkpoint/detection_checkpoint.py", "torch.load(f)", "load_torch(f)"),
            Hunk(
                "checkpoint/detection_checkpoint.py",
                "super()._load_file(filename)",
                "load_torch(filename)",
            ),
        ),
    ),
    Edit(
        "safe-proposals",
        "a file of precomputed proposals executed code",
        MAIN_LACKS_IT,
        (
            Hunk("data/build.py", "import pickle\n", ""),
            Hunk(
                "data/build.py",
                "from detectron2.config import configurable\n",
                "from detectron2.checkpoint._safe_load import load_pickle\n"
                "from detectron2.config import configurable\n",
            ),
            Hunk("data/build.py", 'pickle.load(f, encoding="latin1")', "load_pickle(f)"),
        ),
    ),
    Edit(
        "plain-colors-and-sizes",
        "rounding took colours past 1, which matplotlib refuses; Pillow wants plain integers",
        NEWER_SOURCE,
        (
            Hunk(
                "utils/visualizer.py",
                "        return modified_color\n",
                "        return tuple(np.clip(modified_color, 0.0, 1.0))\n",
            ),
            Hunk(
                "data/transforms/augmentation_impl.py",
                "input_size[1], output_size[0], output_size[1], self.interp",
                "input_size[1], int(output_size[0]), int(output_size[1]), self.interp",
            ),
        ),
    ),
)
