# What kernels/kernels.h declares.

cdef extern from "kernels.h" nogil:
    ctypedef struct umx_gemm_args:
        Py_ssize_t m, n, k
        const float *a
        Py_ssize_t lda
        const float *a_shift
        const float *a_scale
        const void *w
        const float *w_scale
        const int *w_sums
        float *c
        Py_ssize_t ldc
        int accumulate, finish
        const float *scale
        const float *bias
        int act
        const float *gain
        Py_ssize_t ldg
    ctypedef struct umx_scan_args:
        Py_ssize_t nb_frames, hidden
        const float *gates
        const void *w
        const float *w_scale
        const int *w_sums
        float *h
        float *c
        float *out
        Py_ssize_t ldo
        int reverse
    ctypedef struct umx_wiener_args:
        Py_ssize_t nb_frames, nb_bins, bin_start, bin_stop
        int nb_channels, mag_channels, nb_targets, residual, softmask, iterations
        double eps, max_abs
        const float *mix
        const float *mags
        float *y
        double *r
        int stage, level
    ctypedef struct umx_wiener_gradient_args:
        umx_wiener_args filter
        const float *d_y
        float *d_mags
    ctypedef struct umx_kernels:
        const char *name
        int lanes, gemm_nr
        const char *int8_products
        int int8_offset
        int (*gemm)(const umx_gemm_args *) noexcept nogil
        int (*lstm_scan)(const umx_scan_args *) noexcept nogil
        int (*gemm_bf16)(const umx_gemm_args *) noexcept nogil
        int (*lstm_scan_bf16)(const umx_scan_args *) noexcept nogil
        int (*gemm_int8)(const umx_gemm_args *) noexcept nogil
        int (*lstm_scan_int8)(const umx_scan_args *) noexcept nogil
        int (*wiener)(const umx_wiener_args *) noexcept nogil
        int (*wiener_gradient)(const umx_wiener_gradient_args *) noexcept nogil
    int umx_nb_levels()
    const umx_kernels *umx_level(int)
    const char *umx_level_name(int)
    int UMX_INT8_BLOCK
    int UMX_WIENER_WINDOW, UMX_WIENER_ACCUMULATE, UMX_WIENER_FILTER
