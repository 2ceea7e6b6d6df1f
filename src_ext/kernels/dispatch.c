/* Which levels are compiled in, and which of them this processor runs. */
#include "kernels.h"

extern const umx_kernels umx_kernels_portable;
extern const umx_kernels umx_kernels_v3, umx_kernels_v4, umx_kernels_v4_bf16;
static const umx_kernels *const levels[] = {
    &umx_kernels_portable,
#ifdef UMX_LEVELS_X86
    &umx_kernels_v3,
    &umx_kernels_v4,
#endif
#ifdef UMX_LEVEL_BF16
    &umx_kernels_v4_bf16,
#endif
};

int umx_nb_levels(void) { return (int)(sizeof levels / sizeof *levels); }

const char *umx_level_name(int index) { return levels[index]->name; }

const umx_kernels *umx_level(int index) {
#ifdef UMX_LEVELS_X86
    /* These builtins also ask the operating system whether it saves the wide registers. */
    __builtin_cpu_init();
    if (index == 1 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi2")))
        return NULL;
    if (index >= 2 && !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")))
        return NULL;
#endif
#ifdef UMX_LEVEL_BF16
    if (index == 3 && !__builtin_cpu_supports("avx512bf16")) return NULL;
#endif
    return levels[index];
}
