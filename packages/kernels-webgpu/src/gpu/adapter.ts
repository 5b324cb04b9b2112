/** Where a GPU comes from: the browser, or Dawn (npm `webgpu`) in Node. */

import { LowbitError } from '@lowbit/core'

const DAWN: string = 'webgpu'

/**
 * Dawn's instances by their switches, for as long as the process runs: the collector may take an instance down at any
 * time, and with it the driver, where another instance is at work.
 */
const instances = new Map<string, GPU>()

/** The `GPU` of the browser; in Node Dawn's, with its switches, such as `backend=null`. */
export async function findGpu(switches: readonly string[] = []): Promise<GPU> {
  const own = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu
  if (own && switches.length === 0) return own
  let dawn: typeof import('webgpu')
  try {
    // Its name is no literal, so that bundlers for browsers leave it where it is: outside.
    dawn = await import(/* @vite-ignore */ /* webpackIgnore: true */ DAWN)
  } catch (cause) {
    throw new LowbitError(
      'no-device',
      'this engine has no WebGPU: in Node install it with `npm install webgpu`; in browsers see https://caniuse.com/webgpu',
      { cause },
    )
  }
  Object.assign(globalThis, dawn.globals)
  const key = switches.join('\n')
  const gpu = instances.get(key) ?? dawn.create([...switches])
  instances.set(key, gpu)
  return gpu
}

/** An adapter, or an error that says what there is none of. */
export async function findAdapter(
  gpu: GPU,
  options: GPURequestAdapterOptions = {},
): Promise<GPUAdapter> {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance', ...options })
  if (adapter) return adapter
  throw new LowbitError(
    'no-device',
    'WebGPU found no adapter: a graphics driver with Vulkan, Metal or Direct3D 12 is needed',
  )
}
