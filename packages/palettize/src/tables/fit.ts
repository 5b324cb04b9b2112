/** Tables for the blocks of a weight, by each of the modes. */

import { type Kernels, LowbitError, type QuantizeInput, type Tensor } from '@lowbit/core'
import type { Importance } from '../importance.ts'
import { bitsFor, type PaletteScheme } from '../options.ts'

export interface TableFit extends QuantizeInput {
  readonly scheme: PaletteScheme
  readonly blocks: { readonly rows: number; readonly columns: number }
  readonly importance: Importance
  /** [rows, 1]: tables are of the weight divided by it. */
  readonly rowScale?: Tensor
}

const MOST_ENTRIES = 256

/** Tables [blocks, entries], ascending, in f32; entries is a power of two. The caller frees the tensor. */
export async function fitTables(fit: TableFit): Promise<Tensor> {
  const { mode, bits } = fit.scheme
  if (mode === 'unique') return uniqueTables(fit)
  if (mode === 'custom') return customTables(fit)
  return kernelTables(fit, 2 ** bits!, mode === 'uniform' ? 'uniform' : 'kmeans')
}

function kernelTables(fit: TableFit, entries: number, method: 'kmeans' | 'uniform'): Tensor {
  const { kernels, weight, blocks, importance, rowScale } = fit
  const tables = kernels.tensor(blockCount(fit), entries)
  kernels.fitTables(tables, weight, {
    ...{ blockRows: blocks.rows, blockColumns: blocks.columns, method },
    ...(importance.tensor && { importance: importance.tensor }),
    ...(rowScale && { rowScale }),
  })
  return tables
}

function blockCount({ weight, blocks }: TableFit): number {
  return Math.ceil(weight.rows / blocks.rows) * Math.ceil(weight.columns / blocks.columns)
}

/** Every value that occurs, whatever its bits. */
async function uniqueTables(fit: TableFit): Promise<Tensor> {
  const { kernels, weight, name, blocks } = fit
  const { rows, columns } = weight
  const w = await kernels.read(weight)
  const made: Float32Array[] = []
  for (let top = 0; top < rows; top += blocks.rows) {
    for (let left = 0; left < columns; left += blocks.columns) {
      const seen = new Set<number>()
      for (let row = top; row < Math.min(rows, top + blocks.rows); row++) {
        for (let column = left; column < Math.min(columns, left + blocks.columns); column++) {
          // −0 is 0.
          seen.add(w[row * columns + column] + 0)
        }
        if (seen.size > MOST_ENTRIES) {
          throw new LowbitError(
            'bad-input',
            `mode unique: more than ${MOST_ENTRIES} different values share a palette; use mode kmeans`,
            { tensor: name },
          )
        }
      }
      made.push(Float32Array.from(seen).sort())
    }
  }
  return uploadTables(kernels, made)
}

/** Tables by a function of the user's, padded to a power of two. */
async function customTables(fit: TableFit): Promise<Tensor> {
  const { kernels, weight, blocks, importance, rowScale, scheme, name } = fit
  const { rows, columns } = weight
  const w = await kernels.read(weight)
  const h = importance.tensor && (await kernels.read(importance.tensor))
  const s = rowScale && (await kernels.read(rowScale))
  const made: Float32Array[] = []
  for (let top = 0; top < rows; top += blocks.rows) {
    for (let left = 0; left < columns; left += blocks.columns) {
      const high = Math.min(blocks.rows, rows - top)
      const wide = Math.min(blocks.columns, columns - left)
      const values = new Float32Array(high * wide)
      const weights = new Float32Array(high * wide).fill(1)
      for (let r = 0; r < high; r++) {
        for (let c = 0; c < wide; c++) {
          const scale = s ? s[top + r] : 1
          values[r * wide + c] = w[(top + r) * columns + left + c] / scale
          weights[r * wide + c] = scale ** 2 * (h ? h[left + c] : 1)
        }
      }
      made.push(Float32Array.from(scheme.table!(values, weights)).sort())
    }
  }
  const wrong = made.find((table) => table.length === 0 || !table.every(Number.isFinite))
  if (wrong) {
    throw new LowbitError(
      'bad-option',
      'palettize: the function made a table without finite values',
      {
        tensor: name,
        option: 'table',
      },
    )
  }
  return uploadTables(kernels, made)
}

/** Tables of as many entries as the largest needs, a power of two; shorter ones repeat their last value. */
function uploadTables(kernels: Kernels, made: readonly Float32Array[]): Tensor {
  const most = made.reduce((count, table) => Math.max(count, table.length), 0)
  const entries = 2 ** bitsFor(most)
  const padded = new Float32Array(made.length * entries)
  for (const [i, table] of made.entries()) {
    padded.fill(table[table.length - 1], i * entries, (i + 1) * entries)
    padded.set(table, i * entries)
  }
  return kernels.upload(padded, made.length, entries)
}
