/** The driver's library: found by name, its functions as data. */

import { LowbitError } from '@lowbit/core'
import koffi from 'koffi'

/** What the system calls it; the driver brings it, no toolkit is needed. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  linux: ['libcuda.so.1', 'libcuda.so'],
  win32: ['nvcuda.dll'],
}

/** Device addresses are numbers: they have 49 bits at most. */
const PROTOTYPES = [
  'int cuInit(unsigned int flags)',
  'int cuDriverGetVersion(_Out_ int *version)',
  'int cuDeviceGetCount(_Out_ int *count)',
  'int cuDeviceGet(_Out_ int *device, int ordinal)',
  'int cuDeviceGetName(_Out_ uint8_t *name, int length, int device)',
  'int cuDeviceGetAttribute(_Out_ int *value, int attribute, int device)',
  'int cuDeviceTotalMem_v2(_Out_ size_t *bytes, int device)',
  'int cuDevicePrimaryCtxRetain(_Out_ void **context, int device)',
  'int cuDevicePrimaryCtxRelease_v2(int device)',
  'int cuCtxSetCurrent(void *context)',
  'int cuMemGetInfo_v2(_Out_ size_t *free, _Out_ size_t *total)',
  'int cuMemAlloc_v2(_Out_ uint64_t *at, size_t bytes)',
  'int cuMemFree_v2(uint64_t at)',
  'int cuMemHostAlloc(_Out_ void **memory, size_t bytes, unsigned int flags)',
  'int cuMemFreeHost(void *memory)',
  'int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream)',
  'int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream)',
  'int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream)',
  'int cuMemsetD8Async(uint64_t to, uint8_t value, size_t bytes, void *stream)',
  'int cuStreamCreate(_Out_ void **stream, unsigned int flags)',
  'int cuStreamDestroy_v2(void *stream)',
  'int cuStreamSynchronize(void *stream)',
  'int cuModuleLoadData(_Out_ void **module, const void *image)',
  'int cuModuleUnload(void *module)',
  'int cuModuleGetFunction(_Out_ void **function, void *module, const char *name)',
  'int cuLaunchKernel(void *function, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, void *stream, void *params, void *extra)',
  'int cuStreamBeginCapture_v2(void *stream, int mode)',
  'int cuStreamEndCapture(void *stream, _Out_ void **graph)',
  'int cuGraphCreate(_Out_ void **graph, unsigned int flags)',
  'int cuGraphAddKernelNode_v2(_Out_ void **node, void *graph, const void *after, size_t count, const void *params)',
  'int cuGraphExecKernelNodeSetParams_v2(void *instance, void *node, const void *params)',
  'int cuGraphInstantiateWithFlags(_Out_ void **instance, void *graph, uint64_t flags)',
  'int cuGraphLaunch(void *instance, void *stream)',
  'int cuGraphExecDestroy(void *instance)',
  'int cuGraphDestroy(void *graph)',
  'int cuEventCreate(_Out_ void **event, unsigned int flags)',
  'int cuEventRecord(void *event, void *stream)',
  'int cuEventQuery(void *event)',
  'int cuEventElapsedTime(_Out_ float *milliseconds, void *from, void *to)',
  'int cuEventDestroy_v2(void *event)',
  'int cuGetErrorName(int result, _Out_ const char **text)',
  'int cuGetErrorString(int result, _Out_ const char **text)',
]

const nameOf = (prototype: string): string => /(\w+)\(/.exec(prototype)?.[1] ?? ''

/** The driver's functions: each returns 0, or what went wrong. */
export type Functions = Readonly<Record<string, (...args: unknown[]) => number>>

const opened = new Map<string, Functions>()

/** Where it is looked for: `library`, the variable LOWBIT_CUDA_LIBRARY, or the system's names. */
export function openLibrary(library = process.env.LOWBIT_CUDA_LIBRARY): Functions {
  const names = library ? [library] : NAMES[process.platform]
  if (!names) {
    throw new LowbitError('no-device', `NVIDIA has no CUDA driver for ${process.platform}`)
  }
  let cause: unknown
  for (const name of names) {
    const known = opened.get(name)
    if (known) return known
    try {
      const handle = koffi.load(name)
      const functions = PROTOTYPES.map((prototype) => [nameOf(prototype), handle.func(prototype)])
      const found = Object.fromEntries(functions) as Functions
      opened.set(name, found)
      return found
    } catch (error) {
      cause ??= error
    }
  }
  const where = names.join(' or ')
  throw new LowbitError('no-device', `no NVIDIA driver here: ${where} cannot be loaded`, { cause })
}
