"""COCO figures through pycocotools, the official implementation."""

from __future__ import annotations

from typing import Any

from detectron2.evaluation import COCOEvaluator


class CocoEvaluator(COCOEvaluator):
    """Detectron2's evaluator on the official COCO code; a model that finds nothing scores 0.

    Detectron2 reports NaN for a run without a single detection, as if there were nothing to
    measure. There is: with ground truth present, AP is 0.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | None = None,
        max_dets_per_image: int = 100,
        tasks: tuple[str, ...] = ("bbox", "segm"),
        kpt_oks_sigmas: tuple[float, ...] = (),
    ):
        """
        Args:
            dataset_name: a set in COCO's format
            output_dir: where `coco_instances_results.json` goes
            max_dets_per_image: detections that count; COCO's figures are defined for 100
            tasks: of bbox, segm, keypoints; what the model predicts
            kpt_oks_sigmas: one a keypoint; empty for COCO's own of the person
        """
        super().__init__(
            dataset_name,
            tasks=tasks,
            output_dir=output_dir,
            max_dets_per_image=max_dets_per_image,
            use_fast_impl=False,
            kpt_oks_sigmas=kpt_oks_sigmas,
        )
        # Detectron2's 1, 10, limit; pycocotools sorts them and would take 10 for a limit below it.
        self._max_dets_per_image = [1, min(10, max_dets_per_image), max_dets_per_image]
        if max_dets_per_image > 100:
            self._logger.warning(
                "%d detections an image count (TEST.DETECTIONS_PER_IMAGE): AP and AR are not "
                "comparable with COCO's official figures, which stop at 100",
                max_dets_per_image,
            )

    def _derive_coco_results(
        self, coco_eval: Any, iou_type: str, class_names: list[str] | None = None
    ) -> dict[str, float]:
        results = super()._derive_coco_results(coco_eval, iou_type, class_names)
        if coco_eval is None and self._coco_api.anns:
            self._logger.warning("No detection in the whole set %s: AP is 0", self._metadata.name)
            results = dict.fromkeys(results, 0.0)
        return results
