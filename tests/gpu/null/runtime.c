/* A CUDA runtime with one device that computes nothing.
 *
 * torch's FakeTensorMode carries shapes, dtypes and devices through every operator without data, but its backward pass asks the CUDA
 * runtime for a device, streams and events. This library answers: one device of compute capability MAJOR.0 with 80 GB, whose streams
 * are always idle. It is loaded with LD_PRELOAD in front of the real runtime. build.py adds a function that returns success for each
 * other name that torch's libraries ask for.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef int Status; /* cudaError_t: 0 is success */
typedef void *Handle; /* streams and events; none is ever looked into */

#define MEMORY (80ull << 30)
#define PROCESSORS 132
#define CUDA 13000
#define ANSWER(name, parameters, work) Status name parameters { work; return 0; }

static __thread int current;
static const Handle SOMETHING = (Handle)1;

ANSWER(cudaGetDeviceCount, (int *count), *count = 1)
ANSWER(cudaGetDevice, (int *device), *device = current)
ANSWER(cudaSetDevice, (int device), current = device)
ANSWER(cudaDriverGetVersion, (int *version), *version = CUDA)
ANSWER(cudaRuntimeGetVersion, (int *version), *version = CUDA)
ANSWER(cudaDeviceCanAccessPeer, (int *able, int from, int to), *able = 0)

/* The device's memory is the host's. Nothing large is ever asked for: fake tensors have no data. */
ANSWER(cudaMalloc, (void **place, size_t size), *place = calloc(1, size + 1))
ANSWER(cudaFree, (void *place), free(place))
ANSWER(cudaMemGetInfo, (size_t *unused, size_t *total), *total = MEMORY; *unused = MEMORY - (1ull << 30))

/* Pinned memory is remembered, so that torch can ask whether a tensor is pinned. */
struct Block { char *start; size_t size; struct Block *next; };
static struct Block *pinned;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

Status cudaHostAlloc(void **place, size_t size, unsigned flags) {
  struct Block *block = malloc(sizeof *block);
  *place = calloc(1, size + 1); /* large blocks take no memory until somebody writes to them */
  if (!block || !*place) { free(block); free(*place); return 2; /* cudaErrorMemoryAllocation */ }
  block->start = *place;
  block->size = size;
  pthread_mutex_lock(&lock);
  block->next = pinned;
  pinned = block;
  pthread_mutex_unlock(&lock);
  return 0;
}
Status cudaMallocHost(void **place, size_t size) { return cudaHostAlloc(place, size, 0); }

Status cudaFreeHost(void *place) {
  pthread_mutex_lock(&lock);
  for (struct Block **link = &pinned; *link; link = &(*link)->next)
    if ((*link)->start == place) {
      struct Block *block = *link;
      *link = block->next;
      free(block);
      break;
    }
  pthread_mutex_unlock(&lock);
  free(place);
  return 0;
}

struct Attributes { int type, device; void *on_device, *on_host; }; /* the beginning of cudaPointerAttributes */
Status cudaPointerGetAttributes(struct Attributes *found, const void *place) {
  *found = (struct Attributes){0, -2, NULL, NULL}; /* cudaMemoryTypeUnregistered */
  pthread_mutex_lock(&lock);
  for (struct Block *block = pinned; block; block = block->next)
    if ((char *)place >= block->start && (char *)place < block->start + block->size + 1)
      *found = (struct Attributes){1 /* cudaMemoryTypeHost */, 0, (void *)place, (void *)place};
  pthread_mutex_unlock(&lock);
  return 0;
}

ANSWER(cudaStreamCreateWithPriority, (Handle *stream, unsigned flags, int priority), *stream = SOMETHING)
ANSWER(cudaStreamGetPriority, (Handle stream, int *priority), *priority = 0)
ANSWER(cudaDeviceGetStreamPriorityRange, (int *least, int *greatest), *least = 0; *greatest = -1)
ANSWER(cudaStreamIsCapturing, (Handle stream, int *status), *status = 0)
ANSWER(cudaEventCreate, (Handle *event), *event = SOMETHING)
ANSWER(cudaEventCreateWithFlags, (Handle *event, unsigned flags), *event = SOMETHING)
ANSWER(cudaEventElapsedTime, (float *milliseconds, Handle from, Handle to), *milliseconds = 1)

/* cudaDeviceAttr: the numbers of driver_types.h */
enum { MAX_THREADS = 1, WARP = 10, MULTIPROCESSORS = 16, CAPABILITY_MAJOR = 75 };
Status cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == CAPABILITY_MAJOR  ? MAJOR
         : attribute == MULTIPROCESSORS   ? PROCESSORS
         : attribute == WARP              ? 32
         : attribute == MAX_THREADS       ? 1024 : 0;
  return 0;
}

/* The beginning of cudaDeviceProp, which CUDA 12 and 13 share up to `minor`; the count of processors lies 4 bytes later in 12. */
struct Properties {
  char name[256], uuid[16], luid[8];
  unsigned mask;
  size_t memory, shared;
  int registers, warp;
  size_t pitch;
  int threads, block[3], grid[3], clock_of_12;
  size_t constant;
  int major, minor;
  size_t texture[2];
  int processors_of_13, processors_of_12;
};
Status cudaGetDeviceProperties(void *place, int device) {
  struct Properties properties = {"NVIDIA Null 80GB"};
  properties.memory = MEMORY;
  properties.shared = 48 << 10;
  properties.registers = 65536;
  properties.warp = 32;
  properties.threads = 1024;
  properties.major = MAJOR;
  properties.processors_of_12 = properties.processors_of_13 = PROCESSORS;
  memset(place, 0, 1000);
  memcpy(place, &properties, sizeof properties);
  return 0;
}
Status cudaGetDeviceProperties_v2(void *place, int device) { return cudaGetDeviceProperties(place, device); }

const char *cudaGetErrorString(Status error) { return "the null GPU has no errors"; }
const char *cudaGetErrorName(Status error) { return "none"; }

/* torch asks for functions of the driver by name: those of driver.c, which lies beside this library as libcuda.so.1. */
Status cudaGetDriverEntryPoint(const char *name, void **function, unsigned long long flags, int *result) {
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
  *function = driver ? dlsym(driver, name) : NULL;
  if (result) *result = *function ? 0 : 1;
  return 0;
}
Status cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags, int *result) {
  return cudaGetDriverEntryPoint(name, function, flags, result);
}
