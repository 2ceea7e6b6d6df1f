/* One instruction-set level: the kernel bodies and their table.
 * Included by isa_*.c, which define LEVEL (identifier), LEVEL_NAME, VL and MR. */
#include "kernels.h"
#include "vec.h"
#include "gemm_body.h"
#include "lstm_body.h"
#include "wiener_body.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

const umx_kernels JOIN(umx_kernels_, LEVEL) = {LEVEL_NAME, VL, 2 * VL, gemm, lstm_scan, wiener};
