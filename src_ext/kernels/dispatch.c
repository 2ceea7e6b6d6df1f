/* Which levels are compiled in, and which of them this processor runs. */
#include "kernels.h"

#ifdef UMX_LEVEL_DOTPROD
#ifdef __APPLE__
#include <sys/sysctl.h>
#else
#include <sys/auxv.h>
#endif

static int runs_dotprod(void) {
#ifdef __APPLE__
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#else
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */
#endif
}
#endif

static int runs_always(void) { return 1; }

#ifdef UMX_LEVELS_X86
/* These builtins also ask the operating system whether it saves the wide registers. */
static int runs_v3(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static int runs_v4(void) {
    return runs_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
}
#endif
#ifdef UMX_LEVEL_VNNI256
static int runs_v3_vnni(void) { return runs_v3() && __builtin_cpu_supports("avxvnni"); }
#endif
#ifdef UMX_LEVEL_VNNI512
static int runs_v4_vnni(void) { return runs_v4() && __builtin_cpu_supports("avx512vnni"); }
#endif
#ifdef UMX_LEVEL_BF16
static int runs_v4_bf16(void) {
    return runs_v4() && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
}
#endif

extern const umx_kernels umx_kernels_portable, umx_kernels_dotprod, umx_kernels_v3,
    umx_kernels_v3_vnni, umx_kernels_v4, umx_kernels_v4_vnni, umx_kernels_v4_bf16;
static const struct {
    const umx_kernels *table;
    int (*runs)(void);
} levels[] = {
    {&umx_kernels_portable, runs_always},
#ifdef UMX_LEVEL_DOTPROD
    {&umx_kernels_dotprod, runs_dotprod},
#endif
#ifdef UMX_LEVELS_X86
    {&umx_kernels_v3, runs_v3},
#ifdef UMX_LEVEL_VNNI256
    {&umx_kernels_v3_vnni, runs_v3_vnni},
#endif
    {&umx_kernels_v4, runs_v4},
#ifdef UMX_LEVEL_VNNI512
    {&umx_kernels_v4_vnni, runs_v4_vnni},
#endif
#ifdef UMX_LEVEL_BF16
    {&umx_kernels_v4_bf16, runs_v4_bf16},
#endif
#endif
};

int umx_nb_levels(void) { return (int)(sizeof levels / sizeof *levels); }

const char *umx_level_name(int index) { return levels[index].table->name; }

const umx_kernels *umx_level(int index) {
    return levels[index].runs() ? levels[index].table : NULL;
}
