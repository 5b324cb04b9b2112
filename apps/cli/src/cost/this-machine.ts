/** This machine as a device of the roofline, and what it really reaches. */

import os from 'node:os'
import { type Kernels, seededRandom } from '@lowbit/core'
import type { DeviceFacts } from '@lowbit/inspection'
import { createMemory, type Decoder } from '@lowbit/model'
import { measureSpeed } from '@lowbit/testing/checks'

interface GpuFacts {
  readonly adapter: string
  peak(): Promise<{ readonly gigaflops: number; readonly gigabytesPerSecond: number }>
}

/** By the doctor's figures: a copy for memory, dense products and int4 × int8 products for arithmetic. */
export async function thisMachine(kernels: Kernels): Promise<DeviceFacts> {
  const { gflops, int4Gflops, memoryBytesPerSecond } = await measureSpeed(kernels)
  const gpu = 'adapter' in kernels ? (kernels as Kernels & GpuFacts) : undefined
  const peak = await gpu?.peak()
  const f32 = Math.max(gflops, peak?.gigaflops ?? 0) * 1e9
  const bytesPerSecond = peak ? peak.gigabytesPerSecond * 1e9 : memoryBytesPerSecond
  return {
    name: kernels.name,
    title: gpu ? gpu.adapter : `this machine: ${kernels.variant}`,
    memoryBytes: os.totalmem(),
    bytesPerSecond,
    busBytesPerSecond: memoryBytesPerSecond,
    flops: { f32, f16: f32, int8: Math.max(f32, int4Gflops * 1e9) },
    source: 'measured now',
  }
}

export interface MeasuredSpeed {
  readonly prefillTokensPerSecond: number
  readonly tokensPerSecond: number
}

/** Before anything is timed: engines compile kernels and what calls them anew once they have run for a while. */
const WARM_UP = 64
const WARM_SECONDS = 1.5
const TIMED = 32
const CHUNK = 512

/** Reading `context` tokens, and making the next ones. */
export async function measureModel(
  decoder: Decoder,
  context: number,
  cache: Parameters<Decoder['cache']>[1],
): Promise<MeasuredSpeed> {
  const { kernels, config } = decoder
  const random = seededRandom(5)
  const ids = Array.from({ length: context + TIMED }, () =>
    Math.floor(random() * config.vocabulary),
  )
  async function run(prompt: readonly number[], more: readonly number[]): Promise<MeasuredSpeed> {
    const memory = createMemory(decoder, { capacity: prompt.length + more.length, cache })
    const settle = async (hidden: ReturnType<Decoder['forward']>): Promise<void> => {
      const logits = decoder.logits(kernels.rows(hidden, hidden.rows - 1, hidden.rows))
      await kernels.read(logits)
      kernels.free(logits, hidden)
    }
    const started = performance.now()
    for (let from = 0; from < prompt.length; from += CHUNK) {
      const hidden = memory.forward(prompt.slice(from, from + CHUNK))
      if (from + CHUNK < prompt.length) kernels.free(hidden)
      else await settle(hidden)
    }
    const read = performance.now()
    const steps: number[] = []
    for (const token of more) {
      const from = performance.now()
      await settle(memory.forward([token]))
      steps.push(performance.now() - from)
    }
    memory.dispose()
    // The median: other programs take their turns.
    const middle = steps.sort((a, b) => a - b)[steps.length >> 1]
    const seconds = (read - started) / 1000
    return {
      prefillTokensPerSecond: prompt.length / seconds,
      tokensPerSecond: 1000 / middle,
    }
  }
  const warm = Math.min(WARM_UP, context)
  const started = performance.now()
  do await run(ids.slice(0, warm), ids.slice(0, Math.min(WARM_UP, config.context - warm)))
  while (performance.now() - started < 1000 * WARM_SECONDS)
  const before = Math.min(context, config.context - TIMED)
  return run(ids.slice(0, before), ids.slice(before, before + TIMED))
}
