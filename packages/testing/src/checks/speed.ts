/** How fast this machine is, in the two figures that decide: arithmetic and memory. */

import {
  type Kernels,
  packCodes,
  perGroup,
  seededRandom,
  signedGrid,
  toNumbers,
} from '@lowbit/core'

export interface Speed {
  /** Dense f32 products, all threads. */
  readonly gflops: number
  /** Products of one vector with an int4 matrix: what generating text is made of. */
  readonly int4Gflops: number
  /** Bytes copied, read and written counted once each. */
  readonly memoryBytesPerSecond: number
}

export async function measureSpeed(kernels: Kernels): Promise<Speed> {
  return {
    gflops: await denseSpeed(kernels, 512),
    int4Gflops: await vectorSpeed(kernels, 2048),
    memoryBytesPerSecond: kernels.name === 'webgpu' ? await copySpeed(kernels) : memorySpeed(),
  }
}

const MEASURED_MS = 400

/** Calls per second, after a warm-up. Twice as many at a time until they take long enough: a GPU is only then waited for. */
async function rate(call: () => void, settle: () => Promise<unknown>): Promise<number> {
  call()
  await settle()
  for (let calls = 1; ; calls *= 2) {
    const started = performance.now()
    for (let i = 0; i < calls; i++) call()
    await settle()
    const taken = performance.now() - started
    if (taken >= MEASURED_MS) return calls / (taken / 1000)
  }
}

async function denseSpeed(kernels: Kernels, size: number): Promise<number> {
  const random = seededRandom(3)
  const values = Float32Array.from({ length: size * size }, () => random() - 0.5)
  const a = kernels.upload(values, size, size)
  const b = kernels.upload(values, size, size)
  const out = kernels.tensor(size, size)
  const perSecond = await rate(
    () => kernels.multiply(out, a, b),
    () => kernels.read(kernels.rows(out, 0, 1)),
  )
  kernels.free(a, b, out)
  return (perSecond * 2 * size ** 3) / 1e9
}

async function vectorSpeed(kernels: Kernels, size: number): Promise<number> {
  const random = seededRandom(4)
  const group = 128
  const weight = kernels.load(
    {
      ...{ rows: size, columns: size },
      stages: [
        {
          codes: packCodes(
            Uint8Array.from({ length: size * size }, () => 16 * random()),
            4,
          ),
          vector: { length: 1, along: 'in' },
          grid: signedGrid(4),
          scale: {
            blocks: perGroup(group),
            values: toNumbers('f16', new Float32Array(size * (size / group)).fill(1 / 16)),
          },
        },
      ],
    },
    { activations: 'int8' },
  )
  const x = kernels.upload(
    Float32Array.from({ length: size }, () => random() - 0.5),
    1,
    size,
  )
  const out = kernels.tensor(1, size)
  const perSecond = await rate(
    () => kernels.matmul(out, x, weight),
    () => kernels.read(out),
  )
  kernels.free(x, out)
  kernels.unload(weight)
  return (perSecond * 2 * size ** 2) / 1e9
}

function memorySpeed(): number {
  // Larger than the caches of most machines.
  const from = new Float64Array(16 * 2 ** 20).fill(1)
  const to = new Float64Array(from.length)
  to.set(from)
  const started = performance.now()
  let copies = 0
  while (performance.now() - started < MEASURED_MS) {
    to.set(from)
    copies++
  }
  return (copies * 2 * from.byteLength) / ((performance.now() - started) / 1000)
}

/** The device's own copy of tensors larger than caches. */
async function copySpeed(kernels: Kernels): Promise<number> {
  const [x, out] = [kernels.tensor(4096, 4096), kernels.tensor(4096, 4096)]
  const perSecond = await rate(
    () => kernels.copy(out, x),
    () => kernels.read(kernels.rows(out, 0, 1)),
  )
  kernels.free(x, out)
  return perSecond * 2 * 4 * 4096 ** 2
}
