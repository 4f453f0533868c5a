from setuptools import Extension as CppExtension
from setuptools.command.build_ext import build_ext as BuildExtension

CUDAExtension = CppExtension
CUDA_HOME = ROCM_HOME = None

__all__ = ["BuildExtension", "CUDAExtension", "CUDA_HOME", "CppExtension", "ROCM_HOME"]
