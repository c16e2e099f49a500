"""Environment variables that choose kernels, as records keep them and reruns compare them."""

from harness.common import kernel_settings


def test_what_is_set_stands_in_a_record_by_name() -> None:
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE", "HOME": "/root", "MKL_DYNAMIC": ""}
    assert kernel_settings.in_force("cpu", environment) == "MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=AVX2"
    assert kernel_settings.in_force("cpu", {}) == "none"


def test_on_a_gpu_the_workspace_that_the_harness_sets_is_in_force() -> None:
    assert kernel_settings.in_force("cuda:0", {}) == "CUBLAS_WORKSPACE_CONFIG=:4096:8"
    assert kernel_settings.in_force("cuda", {"CUBLAS_WORKSPACE_CONFIG": ":16:8"}) == "CUBLAS_WORKSPACE_CONFIG=:16:8"


def test_a_change_names_the_variables_that_differ() -> None:
    before, now = "MKL_CBWR=AVX2 NVIDIA_TF32_OVERRIDE=0", "ATEN_CPU_CAPABILITY=avx2 NVIDIA_TF32_OVERRIDE=0"
    words = kernel_settings.changes(before, now)
    assert words == "ATEN_CPU_CAPABILITY: not set then, avx2 now; MKL_CBWR: AVX2 then, not set now"
    assert kernel_settings.changes("none", "MKL_CBWR=AVX2") == "MKL_CBWR: not set then, AVX2 now"
