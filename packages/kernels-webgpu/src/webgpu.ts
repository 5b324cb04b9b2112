/** The kernels of a GPU as one object. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { algebraOperations } from './algebra/operations.ts'
import { distributionOperations } from './decoder/distributions.ts'
import { gradientOperations } from './decoder/gradients.ts'
import { decoderOperations } from './decoder/operations.ts'
import { findAdapter, findGpu } from './gpu/adapter.ts'
import { createDevice } from './gpu/device.ts'
import { missing } from './missing.ts'
import { quantizeOperations } from './quantize/operations.ts'
import { tableOperations } from './tables/operations.ts'
import { tensorOperations } from './tensors.ts'
import { trainingOperations } from './training/operations.ts'
import { vectorOperations } from './vectors/operations.ts'
import { weightOperations } from './weights/operations.ts'

export interface WebGpuOptions {
  /** Where adapters come from: by default the browser's, in Node that of npm `webgpu`. */
  readonly gpu?: GPU
  /** Dawn's switches in Node, such as `backend=null`, which validates shaders and runs none. */
  readonly switches?: readonly string[]
  /** Bytes that tensors and weights may take. Default: no limit but the device's. */
  readonly memoryLimit?: number
}

export interface WebGpuKernels extends Kernels {
  readonly adapter: string
  readonly features: readonly string[]
}

/** Limits that are worth having more of than every device must offer. */
const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
] as const

/** Dawn's devices die with the object that they came from, which nothing else would hold. */
const instances = new Set<GPU>()

export async function webgpu(options: WebGpuOptions = {}): Promise<WebGpuKernels> {
  const { memoryLimit = Number.POSITIVE_INFINITY } = options
  const gpu = options.gpu ?? (await findGpu(options.switches))
  instances.add(gpu)
  const adapter = await findAdapter(gpu)
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]))
  let handle: GPUDevice
  try {
    handle = await adapter.requestDevice({ requiredLimits })
  } catch (cause) {
    throw new LowbitError('no-device', `the adapter gives no device: ${String(cause)}`, { cause })
  }
  const device = createDevice(handle, memoryLimit)
  const { vendor, architecture, device: model, description } = adapter.info
  const name = description || [vendor, architecture, model].filter(Boolean).join(' ') || 'unknown'
  return {
    name: 'webgpu',
    variant: `WGSL without optional features on ${name}`,
    strict: false,
    adapter: name,
    features: [...adapter.features].sort(),
    get bytes() {
      return device.bytes
    },
    ...tensorOperations(device),
    ...weightOperations(device),
    ...algebraOperations(device),
    ...decoderOperations(device),
    ...distributionOperations(device),
    ...quantizeOperations(device),
    ...tableOperations(device),
    ...vectorOperations(device),
    ...gradientOperations(device),
    ...trainingOperations(device),
    ...missing('hadamard', 'encodeRows', 'decodeRows', 'attendCoded'),
    dispose() {
      device.dispose()
      instances.delete(gpu)
    },
  }
}
