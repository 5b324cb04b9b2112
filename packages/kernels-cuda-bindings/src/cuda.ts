/** The kernels of an NVIDIA GPU as one object. */

import type { Kernels } from '@lowbit/core'
import { algebraOperations } from './algebra.ts'
import { cacheOperations } from './cache.ts'
import { clusterOperations } from './clusters.ts'
import { decoderOperations } from './decoder.ts'
import { openDevice } from './driver/device.ts'
import type { GraphCounts } from './driver/launches.ts'
import { gradientOperations } from './gradients.ts'
import { roundingOperations } from './rounding.ts'
import { tableOperations } from './tables.ts'
import { tensorOperations } from './tensors.ts'
import { trainingOperations } from './training.ts'
import { vectorOperations } from './vectors.ts'
import { weightOperations } from './weights.ts'

export interface CudaOptions {
  /** The driver's library, where it has another name than the system's: also LOWBIT_CUDA_LIBRARY. */
  readonly library?: string
  /** Which GPU, counted from 0. */
  readonly device?: number
  /** Bytes that tensors and weights may take. Default: no limit but the device's. */
  readonly memoryLimit?: number
  /** Whether steps that repeat, as generation's do, are launched as graphs. Default: yes. */
  readonly graphs?: boolean
}

export interface CudaKernels extends Kernels {
  /** Of CUDA that the driver was made for. */
  readonly driver: string
  /** The GPU, with its compute capability. */
  readonly device: string
  /** Seconds that the operations in `work` take on the GPU itself. They must neither upload nor read. */
  measure(work: () => void): number
  /** Steps that were launched as graphs, their kernels, and how many of those had to be set anew. */
  readonly graphs: GraphCounts
}

export async function cuda(options: CudaOptions = {}): Promise<CudaKernels> {
  const { library, device: ordinal = 0, memoryLimit = Number.POSITIVE_INFINITY, graphs } = options
  const device = openDevice({ library, ordinal, memoryLimit, graphs })
  return {
    name: 'cuda',
    variant: `CUDA on ${device.name}`,
    strict: false,
    driver: device.driver,
    device: device.name,
    get bytes() {
      return device.bytes
    },
    ...tensorOperations(device),
    ...weightOperations(device),
    ...algebraOperations(device),
    ...decoderOperations(device),
    ...roundingOperations(device),
    ...gradientOperations(device),
    ...trainingOperations(device),
    ...cacheOperations(device),
    ...tableOperations(device),
    ...clusterOperations(device),
    ...vectorOperations(device),
    measure: device.measure,
    get graphs() {
      return device.graphs
    },
    dispose: device.dispose,
  }
}
