/** Scales, codes, and the feedback pass one column at a time. */

import {
  blockIndexer,
  type Kernels,
  LowbitError,
  type Rounding,
  type TableBlocks,
  type Tensor,
} from '@lowbit/core'
import { fitBlock } from './fitting.ts'
import { checkShape, type Memory } from './memory.ts'
import { gridRounder, gridRounders } from './rounding.ts'
import { fitTable } from './tables.ts'

export function quantizing(
  memory: Memory,
): Pick<
  Kernels,
  'fit' | 'fitTables' | 'decodeCodes' | 'sumByCode' | 'round' | 'feedback' | 'descend'
> {
  const { floats, codes: bytes } = memory
  return {
    fit(scale, zero, weight, options) {
      const { blockRows, blockColumns, asymmetric, importance } = options
      const { rows, columns } = weight
      checkBlocks(scale, zero, weight, options)
      if (asymmetric !== (zero !== undefined)) {
        throw new LowbitError('bad-shape', 'a tensor of zero points belongs to asymmetric blocks')
      }
      if (importance) checkShape('importance', importance, 1, columns)
      const [w, h] = [floats(weight), importance && floats(importance)]
      const rounder = gridRounder(options.grid)
      for (let block = 0; block < scale.rows * scale.columns; block++) {
        const top = Math.floor(block / scale.columns) * blockRows
        const left = (block % scale.columns) * blockColumns
        const weights: number[] = []
        const factors: number[] = []
        for (let row = top; row < Math.min(rows, top + blockRows); row++) {
          for (let column = left; column < Math.min(columns, left + blockColumns); column++) {
            weights.push(w[row * columns + column])
            factors.push(h ? h[column] : 1)
          }
        }
        const fitted = fitBlock(weights, factors, options, rounder)
        floats(scale)[block] = fitted.scale
        if (zero) floats(zero)[block] = fitted.zero
      }
    },
    decodeCodes(out, codes, tables, blocks) {
      const { rows, columns } = codes
      checkShape('out', out, rows, columns)
      checkTables(tables, rows, columns, blocks)
      const [o, c, t] = [floats(out), bytes(codes), floats(tables)]
      const s = blocks.rowScale && floats(blocks.rowScale)
      const blockOf = tableIndexer(blocks, columns)
      for (let at = 0; at < rows * columns; at++) {
        const row = Math.floor(at / columns)
        const value = t[blockOf(row, at % columns) * tables.columns + c[at]]
        o[at] = (s ? s[row] : 1) * value
      }
    },
    sumByCode(sums, x, codes, blocks) {
      const { rows, columns } = codes
      checkShape('x', x, rows, columns)
      checkTables(sums, rows, columns, blocks)
      const [c, v] = [bytes(codes), floats(x)]
      const s = blocks.rowScale && floats(blocks.rowScale)
      const blockOf = tableIndexer(blocks, columns)
      const totals = new Float64Array(sums.rows * sums.columns)
      for (let at = 0; at < rows * columns; at++) {
        const row = Math.floor(at / columns)
        totals[blockOf(row, at % columns) * sums.columns + c[at]] += (s ? s[row] : 1) * v[at]
      }
      floats(sums).set(totals)
    },
    fitTables(tables, weight, options) {
      const { blockRows, blockColumns, method, importance, rowScale } = options
      const { rows, columns } = weight
      const entries = tables.columns
      checkTables(tables, rows, columns, options)
      const across = Math.ceil(columns / blockColumns)
      const each = importance && importance.rows !== 1
      if (importance) checkShape('importance', importance, each ? rows : 1, columns)
      const [t, w, h] = [floats(tables), floats(weight), importance && floats(importance)]
      const s = rowScale && floats(rowScale)
      for (let block = 0; block < tables.rows; block++) {
        const top = Math.floor(block / across) * blockRows
        const left = (block % across) * blockColumns
        const [weights, factors]: [number[], number[]] = [[], []]
        for (let row = top; row < Math.min(rows, top + blockRows); row++) {
          for (let column = left; column < Math.min(columns, left + blockColumns); column++) {
            const scale = s ? s[row] : 1
            weights.push(Math.fround(w[row * columns + column] / scale))
            factors.push(scale ** 2 * (h ? h[each ? row * columns + column : column] : 1))
          }
        }
        t.set(fitTable(weights, factors, entries, method), block * entries)
      }
    },
    round(codes, decoded, weight, scale, zero, rounding) {
      const { rows, columns } = weight
      checkShape('codes', codes, rows, columns)
      if (decoded) checkShape('decoded', decoded, rows, columns)
      checkBlocks(scale, zero, weight, rounding)
      const [c, w, s] = [bytes(codes), floats(weight), floats(scale)]
      const [d, z] = [decoded && floats(decoded), zero && floats(zero)]
      const rounders = gridRounders(rounding.grid, rows, columns)
      for (let at = 0; at < rows * columns; at++) {
        const [row, column] = [Math.floor(at / columns), at % columns]
        const blockRow = Math.floor(row / rounding.blockRows)
        const block = blockRow * scale.columns + Math.floor(column / rounding.blockColumns)
        const offset = z ? z[block] : 0
        const { nearest, values } = rounders(row, column)
        c[at] = nearest(quotient(w[at], s[block]), offset)
        if (d) d[at] = s[block] * (values[c[at]] - offset)
      }
    },
    feedback(codes, weight, factor, scale, zero, options) {
      const { rows, columns } = weight
      const { from, to, blockOf, tableOf, blockRows, blockColumns } = options
      checkShape('codes', codes, rows, columns)
      checkShape('factor', factor, columns, columns)
      checkShape('scale', scale, Math.ceil(rows / blockRows), scale.columns)
      if (zero) checkShape('zero', zero, scale.rows, scale.columns)
      if (!(Number.isInteger(from) && from >= 0 && from <= to && to <= columns)) {
        throw new LowbitError('bad-shape', `columns ${from} to ${to} of ${columns}`)
      }
      if (blockOf)
        checkShape('blockOf', { rows: 1, columns: blockOf.length, type: 'f32' }, 1, columns)
      const blockColumn = (j: number) => (blockOf ? blockOf[j] : Math.floor(j / blockColumns))
      for (let j = from; j < to; j++) {
        if (blockColumn(j) >= scale.columns) {
          throw new LowbitError(
            'bad-shape',
            `column ${j} needs block ${blockColumn(j)} of ${scale.columns}`,
          )
        }
      }
      const [c, w, u, s] = [bytes(codes), floats(weight), floats(factor), floats(scale)]
      const z = zero && floats(zero)
      const rounders = gridRounders(options.grid, rows, columns, tableOf)
      for (let row = 0; row < rows; row++) {
        for (let j = from; j < to; j++) {
          const { nearest, values } = rounders(row, j)
          const at = row * columns + j
          const block = Math.floor(row / blockRows) * scale.columns + blockColumn(j)
          const offset = z ? z[block] : 0
          c[at] = nearest(quotient(w[at], s[block]), offset)
          const q = s[block] * (values[c[at]] - offset)
          const error = (w[at] - q) / u[j * columns + j]
          w[at] = q
          for (let k = j + 1; k < columns; k++) w[row * columns + k] -= error * u[j * columns + k]
        }
      }
    },
    descend(codes, decoded, weight, hessian, scale, zero, options) {
      const { rows, columns } = weight
      const { blockRows, blockColumns, damping } = options
      checkShape('codes', codes, rows, columns)
      checkShape('decoded', decoded, rows, columns)
      checkShape('hessian', hessian, columns, columns)
      checkBlocks(scale, zero, weight, options)
      const [c, w, q] = [bytes(codes), floats(weight), floats(decoded)]
      const [h, s, z] = [floats(hessian), floats(scale), zero && floats(zero)]
      const rounders = gridRounders(options.grid, rows, columns)
      for (let row = 0; row < rows; row++) {
        const at = row * columns
        for (let j = 0; j < columns; j++) {
          const { nearest, values } = rounders(row, j)
          let slope = damping * (w[at + j] - q[at + j])
          for (let k = 0; k < columns; k++) slope += (w[at + k] - q[at + k]) * h[k * columns + j]
          const power = h[j * columns + j] + damping
          const target = power > 0 ? q[at + j] + slope / power : q[at + j]
          const block = Math.floor(row / blockRows) * scale.columns + Math.floor(j / blockColumns)
          const offset = z ? z[block] : 0
          c[at + j] = nearest(quotient(target, s[block]), offset)
          q[at + j] = s[block] * (values[c[at + j]] - offset)
        }
      }
    },
  }
}

/** A scale of 0 makes a block of zeros, not of NaN. */
const quotient = (w: number, scale: number): number => (scale === 0 ? 0 : w / scale)

function checkBlocks(
  scale: Tensor,
  zero: Tensor | undefined,
  weight: Tensor,
  { blockRows, blockColumns }: Rounding,
): void {
  if (!(Number.isInteger(blockRows) && Number.isInteger(blockColumns))) {
    throw new LowbitError('bad-shape', `blocks of ${blockRows} × ${blockColumns} are impossible`)
  }
  if (blockRows < 1 || blockColumns < 1) throw new LowbitError('bad-shape', 'empty blocks')
  const rows = Math.ceil(weight.rows / blockRows)
  const columns = Math.ceil(weight.columns / blockColumns)
  checkShape('scale', scale, rows, columns)
  if (zero) checkShape('zero', zero, rows, columns)
}

const tableIndexer = ({ blockRows, blockColumns }: TableBlocks, columns: number) =>
  blockIndexer({ rows: blockRows, columns: blockColumns }, columns)

function checkTables(
  tables: Tensor,
  rows: number,
  columns: number,
  { blockRows, blockColumns, rowScale }: TableBlocks,
): void {
  if (!(blockRows >= 1 && blockColumns >= 1)) throw new LowbitError('bad-shape', 'empty blocks')
  const entries = tables.columns
  if (!(entries >= 1 && entries <= 256)) {
    throw new LowbitError('bad-shape', `tables have 1 to 256 entries, not ${entries}`)
  }
  const blocks = Math.ceil(rows / blockRows) * Math.ceil(columns / blockColumns)
  checkShape('tables', tables, blocks, entries)
  if (rowScale) checkShape('rowScale', rowScale, rows, 1)
}
