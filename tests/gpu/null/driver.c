/* The few functions of CUDA's driver that torch asks for beside the runtime: one device, its context there and current. */
typedef int Status; /* CUresult: 0 is success */

Status cuInit(unsigned flags) { return 0; }
Status cuDriverGetVersion(int *version) { *version = 13000; return 0; }
Status cuDeviceGetCount(int *count) { *count = 1; return 0; }
Status cuDeviceGet(int *device, int number) { *device = number; return 0; }
Status cuDeviceGetAttribute(int *value, int attribute, int device) { *value = 0; return 0; }
Status cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }
Status cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
Status cuCtxSetCurrent(void *context) { return 0; }
Status cuGetErrorString(Status error, const char **text) { *text = "the null GPU has no errors"; return 0; }
