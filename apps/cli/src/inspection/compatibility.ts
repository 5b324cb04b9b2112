/**
 * What goes with what, found out by trying: every method makes a small matrix on every grid, every format
 * is asked whether it refuses it, every device multiplies with it.
 */

import {
  decode,
  type Format,
  type Kernels,
  LowbitError,
  NAMED_GRIDS,
  type QuantizedMatrix,
  type QuantizerPlugin,
  seededRandom,
} from '@lowbit/core'
import { quantizeSample } from '@lowbit/pipeline'

export interface Compatibility {
  readonly method: string
  /** "int4", "nf4", "mxfp4". */
  readonly grid: string
  /** By format: why it can't store the matrix, null where it can. */
  readonly formats: Readonly<Record<string, string | null>>
  /** By device: whether it runs the matrix. */
  readonly devices: Readonly<Record<string, boolean>>
}

const INTEGER_BITS = [2, 3, 4, 8]

export async function findCompatibility(
  plugins: readonly QuantizerPlugin[],
  formats: readonly Format[],
  devices: ReadonlyMap<string, Kernels>,
): Promise<Compatibility[]> {
  const [[, first]] = devices
  const found: Compatibility[] = []
  for (const plugin of plugins) {
    for (const { grid, options } of variants(plugin)) {
      const matrix = await quantizeSample(() => plugin(options as never), first)
      if (!matrix) continue
      const runs: Record<string, boolean> = {}
      for (const [name, kernels] of devices) runs[name] = await canRun(kernels, matrix)
      found.push({
        method: plugin.name,
        grid,
        formats: Object.fromEntries(
          formats.map((format) => [format.name, refusal(format, matrix)]),
        ),
        devices: runs,
      })
    }
  }
  return found
}

interface Variant {
  readonly grid: string
  readonly options: Record<string, unknown>
}

/** Every grid for methods that have a choice of grids; the defaults for others. */
function variants(plugin: QuantizerPlugin): Variant[] {
  if (!('grid' in plugin.options.shape)) return [{ grid: 'own', options: {} }]
  return Object.keys(NAMED_GRIDS).flatMap((grid): Variant[] => {
    if (grid !== 'int') return [{ grid, options: { grid } }]
    return INTEGER_BITS.map((bits) => ({ grid: `int${bits}`, options: { grid, bits } }))
  })
}

function refusal(format: Format, matrix: QuantizedMatrix): string | null {
  if (format.name === 'dense') return null
  return format.refuses(matrix) ?? null
}

/** Whether the device gives W·x as decode means it. */
export async function canRun(kernels: Kernels, matrix: QuantizedMatrix): Promise<boolean> {
  return (await largestDifference(kernels, matrix)) < 1e-3
}

/** The largest difference between the device's product and one with the decoded matrix. */
export async function largestDifference(
  kernels: Kernels,
  matrix: QuantizedMatrix,
): Promise<number> {
  const { rows, columns } = matrix
  const random = seededRandom(2)
  const x = Float32Array.from({ length: columns }, () => random() - 0.5)
  try {
    const weight = kernels.load(matrix)
    const input = kernels.upload(x, 1, columns)
    const out = kernels.tensor(1, rows)
    kernels.matmul(out, input, weight)
    const got = await kernels.read(out)
    kernels.free(input, out)
    kernels.unload(weight)
    const dense = decode(matrix)
    let most = 0
    for (let row = 0; row < rows; row++) {
      let sum = 0
      for (let i = 0; i < columns; i++) sum += dense[row * columns + i] * x[i]
      const difference = Math.abs(sum - got[row])
      most = Math.max(most, Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference)
    }
    return most
  } catch (error) {
    if (error instanceof LowbitError) return Number.POSITIVE_INFINITY
    throw error
  }
}
