/* One instruction-set level: the kernel bodies and their table.
 * Included by isa_*.c, which define LEVEL (identifier), LEVEL_NAME, VL, MR and MR_INT8, and HAS_BF16,
 * INT8_VNNI, INT8_MADDUBS or INT8_DOTPROD where products of bfloat16 or int8 are in hardware. */
#include "kernels.h"
#include "vec.h"
#include "gemm_body.h"
#ifdef HAS_BF16
#include "bf16_body.h"
#define GEMM_BF16 gemm_bf16
#else
#define GEMM_BF16 NULL
#endif
#include "int8_body.h"
#include "lstm_body.h"
#include "wiener_body.h"
#include "wiener_gradient_body.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

const umx_kernels JOIN(umx_kernels_, LEVEL) = {
    LEVEL_NAME, VL, 2 * VL, INT8_PRODUCTS, INT8_OFFSET, gemm, lstm_scan, GEMM_BF16, lstm_scan_bf16,
    gemm_int8, lstm_scan_int8, wiener, wiener_gradient,
};
