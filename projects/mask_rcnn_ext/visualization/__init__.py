"""Pictures for people. Reads plain arrays and COCO files; knows no model."""
