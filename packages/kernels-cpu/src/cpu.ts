/** The kernels of the CPU as one object. */

import { type Kernels, LowbitError } from '@lowbit/core'
import { algebraOperations } from './algebra/operations.ts'
import { codedOperations } from './decoder/coded.ts'
import { gradientOperations } from './decoder/gradients.ts'
import { decoderOperations } from './decoder/operations.ts'
import { createDevice } from './device.ts'
import { createMemory } from './memory.ts'
import { compile, hasRelaxedSimd } from './module.ts'
import { quantizeOperations } from './quantize/operations.ts'
import { vectorOperations } from './quantize/vectors.ts'
import { tensorOperations } from './tensors.ts'
import { startThreads } from './threads.ts'
import { weightOperations } from './weights/multiply.ts'
import { askForWideVectors } from './wide.ts'

export interface CpuOptions {
  /** The calling thread included. Default: what the machine has, at most 8. */
  readonly threads?: number
  /** The same bits on every machine; no fused or relaxed instructions. Default true. */
  readonly strict?: boolean
  /** Relaxed SIMD, where not strict. `auto` (default): if the engine has it. */
  readonly relaxed?: 'auto' | boolean
  /**
   * Vectors of 256 bits, where Node's engine can (x86-64 with AVX2, Node 24): up to twice as fast, with the same
   * results. Sets a flag of V8 that it calls experimental, for the whole process. Default false.
   */
  readonly wide?: boolean
  /** The most bytes the kernels may hold. Default and most: 4 GiB. */
  readonly memoryLimit?: number
}

export interface CpuKernels extends Kernels {
  readonly threads: number
  /** The most bytes that tensors, weights and rooms can take together. */
  readonly memoryLimit: number
}

const GIB = 2 ** 30
const MOST_THREADS = 8

export async function cpu(options: CpuOptions = {}): Promise<CpuKernels> {
  const { strict = true, relaxed = 'auto', memoryLimit = 4 * GIB } = options
  const wide = options.wide === true && askForWideVectors()
  const threads = threadCount(options.threads)
  if (!(memoryLimit >= 2 ** 20)) {
    throw new LowbitError('bad-option', 'memoryLimit must be 1 MiB at least', {
      option: 'memoryLimit',
    })
  }
  const wantsRelaxed = !strict && relaxed !== false
  if (wantsRelaxed && relaxed === true && !hasRelaxedSimd()) {
    throw new LowbitError('bad-option', 'this engine has no relaxed SIMD', { option: 'relaxed' })
  }
  const build = wantsRelaxed && hasRelaxedSimd() ? 'relaxed' : 'strict'
  const module = await compile(threads > 1 ? `${build}-threads` : build)
  const memory = createMemory(threads > 1, memoryLimit)
  const pool = await startThreads(module, memory, threads, wide)
  const device = createDevice(memory, pool, build === 'relaxed')
  const count = threads === 1 ? '1 thread' : `${threads} threads`
  return {
    name: 'cpu',
    variant: `${build} SIMD${wide ? ' of 256 bits' : ''}, ${count}`,
    strict: build === 'strict',
    threads,
    memoryLimit,
    get bytes() {
      return memory.held - device.rooms
    },
    ...tensorOperations(device),
    ...weightOperations(device),
    ...algebraOperations(device),
    ...quantizeOperations(device),
    ...vectorOperations(device),
    ...decoderOperations(device),
    ...codedOperations(device),
    ...gradientOperations(device),
    dispose: () => pool.stop(),
  }
}

/** One where memory cannot be shared: an old engine, or a page that is not cross-origin isolated. */
function threadCount(wanted: number | undefined): number {
  if (wanted !== undefined && !(Number.isInteger(wanted) && wanted >= 1)) {
    throw new LowbitError('bad-option', `threads must be 1 or more, not ${wanted}`, {
      option: 'threads',
    })
  }
  const canShare =
    typeof SharedArrayBuffer !== 'undefined' && globalThis.crossOriginIsolated !== false
  if (!canShare) return 1
  return wanted ?? Math.min(MOST_THREADS, globalThis.navigator?.hardwareConcurrency ?? 1)
}
