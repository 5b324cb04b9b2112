/** The kernels of a GPU as one object. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { algebraOperations } from './algebra/operations.ts'
import { codedOperations } from './decoder/coded.ts'
import { distributionOperations } from './decoder/distributions.ts'
import { gradientOperations } from './decoder/gradients.ts'
import { decoderOperations } from './decoder/operations.ts'
import { findAdapter, findGpu } from './gpu/adapter.ts'
import { type Choices, createDevice, PLAIN } from './gpu/device.ts'
import type { ShaderTime } from './gpu/profile.ts'
import { type ChoiceCache, keptChoices, measureChoices } from './measure.ts'
import { measurePeak, type Peak } from './peak.ts'
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
  /**
   * Optional features that shaders may use, of those the adapter has. Default: all of use, `subgroups` and
   * `shader-f16`; none with [].
   */
  readonly features?: readonly string[]
  /**
   * Which shaders do products, instead of measuring it. `kernels.choices` are those of an adapter.
   */
  readonly choices?: Choices
  /** Where measured choices are kept, for each adapter: `localStorage`, or what behaves alike. */
  readonly cache?: ChoiceCache
  /** Times each dispatch where the adapter has `timestamp-query`; `kernels.profile()` tells. Everything is slower then. */
  readonly profile?: boolean
  /** Bytes that tensors and weights may take. Default: no limit but the device's. */
  readonly memoryLimit?: number
}

export interface WebGpuKernels extends Kernels {
  readonly adapter: string
  /** All that the adapter has. */
  readonly features: readonly string[]
  readonly choices: Choices
  /** Shaders by the time that they took, the slowest first, if `profile` was asked for. */
  profile(): Promise<ShaderTime[]>
  /** Measures what the adapter can do at most; takes about a second. */
  peak(): Promise<Peak>
}

/** Limits that are worth having more of than every device must offer. */
const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
] as const

/** Optional features that shaders make use of. */
const USED: readonly GPUFeatureName[] = ['subgroups', 'shader-f16']

/** Threads that each subgroup of an adapter has at least, as far as shaders make use of them. */
const subgroupOf = ({ subgroupMinSize = 0 }: GPUAdapterInfo): number =>
  [8, 4].find((size) => subgroupMinSize >= size) ?? 0

/** Dawn's devices die with the object that they came from, which nothing else would hold. */
const instances = new Set<GPU>()

export async function webgpu(options: WebGpuOptions = {}): Promise<WebGpuKernels> {
  const gpu = options.gpu ?? (await findGpu(options.switches))
  instances.add(gpu)
  const adapter = await findAdapter(gpu)
  const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]))
  const wanted = options.features ?? USED
  const used = USED.filter((name) => wanted.includes(name) && adapter.features.has(name))
  const profiled = (options.profile ?? false) && adapter.features.has('timestamp-query')
  let handle: GPUDevice
  try {
    const requiredFeatures = [...used, ...(profiled ? (['timestamp-query'] as const) : [])]
    handle = await adapter.requestDevice({ requiredLimits, requiredFeatures })
  } catch (cause) {
    throw new LowbitError('no-device', `the adapter gives no device: ${String(cause)}`, { cause })
  }
  const device = createDevice(handle, {
    subgroup: used.includes('subgroups') ? subgroupOf(adapter.info) : 0,
    halves: used.includes('shader-f16'),
    dots: gpu.wgslLanguageFeatures?.has('packed_4x8_integer_dot_product') ?? false,
    profiled,
  })
  const { vendor, architecture, device: model, description } = adapter.info
  const name = description || [vendor, architecture, model].filter(Boolean).join(' ') || 'unknown'
  const key = `lowbit/webgpu/2 ${name} ${used.join(' ')}`
  const kept = options.choices ?? keptChoices(options.cache, key)
  const idle = options.switches?.includes('backend=null')
  device.choices = kept ?? (idle ? PLAIN : await measureChoices(device, name))
  device.memoryLimit = options.memoryLimit ?? Number.POSITIVE_INFINITY
  if (!kept && !idle) options.cache?.setItem(key, JSON.stringify(device.choices))
  return {
    name: 'webgpu',
    variant: `WGSL ${used.length > 0 ? `with ${used.join(', ')}` : 'without optional features'} on ${name}`,
    choices: device.choices,
    profile: device.times,
    peak: () => measurePeak(device),
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
    ...codedOperations(device),
    dispose() {
      device.dispose()
      instances.delete(gpu)
    },
  }
}
