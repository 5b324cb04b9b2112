/** Passes over vectors of weights, one after the other. */

import {
  type ColumnRange,
  type Kernels,
  LowbitError,
  type Tensor,
  type VectorRounding,
} from '@lowbit/core'
import { nearestOf } from './clustering.ts'
import { checkShape, type Memory } from './memory.ts'

type Operations = Pick<
  Kernels,
  'transpose' | 'feedbackVectors' | 'decodeVectors' | 'scatterVectors' | 'descendVectors'
>

export function vectorOperations(memory: Memory): Operations {
  const { floats } = memory
  const integers = (tensor: Tensor): Uint16Array => {
    const values = memory.codes(tensor)
    if (values instanceof Uint16Array) return values
    throw new LowbitError('bad-type', 'codes of vectors are u16')
  }

  /** Where the weights and codes of a pass lie, with everything checked. */
  function prepare(
    codes: readonly Tensor[],
    weight: Tensor,
    options: VectorRounding & ColumnRange,
  ) {
    const { rows, columns } = weight
    const { length, along, tables, from = 0, to = columns } = options
    const { tableRows = rows, scaleColumns = columns } = options
    if (!Number.isInteger(length) || length < 1 || length > 16) {
      throw new LowbitError('bad-shape', `vectors of ${length} weights`)
    }
    if (!(Number.isInteger(from) && from >= 0 && from < to && to <= columns)) {
      throw new LowbitError('bad-shape', `columns ${from} to ${to} of ${columns}`)
    }
    const out = along === 'out'
    if (out && tableRows < rows) throw new LowbitError('bad-shape', 'one table for all rows')
    if (!out && (options.columnScale || options.columnBias)) {
      throw new LowbitError('bad-shape', 'no scales of columns along the columns')
    }
    if (!out && scaleColumns < columns && scaleColumns % length !== 0) {
      throw new LowbitError('bad-shape', 'a scale changes inside a vector')
    }
    if (tables.length === 0 || codes.length !== tables.length) {
      throw new LowbitError('bad-shape', `${codes.length} codes for ${tables.length} tables`)
    }
    const across = Math.ceil(columns / scaleColumns)
    const vectorRows = out ? Math.ceil(rows / length) : rows
    const vectorColumns = out ? to - from : Math.ceil((to - from) / length)
    tables.forEach(({ values, entries }, i) => {
      checkShape('a table', values, Math.ceil(rows / tableRows) * entries, length)
      checkShape('codes', codes[i], vectorRows, vectorColumns)
    })
    const { rowScale, columnScale, columnBias } = options
    if (rowScale) checkShape('rowScale', rowScale, rows, across)
    if (columnScale) checkShape('columnScale', columnScale, 1, columns)
    if (columnBias) checkShape('columnBias', columnBias, 1, columns)
    const [r, s, b] = [rowScale, columnScale, columnBias].map((x) => x && floats(x))
    const scaleOf = (row: number, column: number): number =>
      (r ? r[row * across + Math.floor(column / scaleColumns)] : 1) * (s ? s[column] : 1)
    const biasOf = (column: number): number => (b ? b[column] : 0)
    const entry = (stage: number, row: number, code: number): ArrayLike<number> => {
      const { values, entries } = tables[stage]
      const at = (Math.floor(row / tableRows) * entries + code) * length
      return floats(values).subarray(at, at + length)
    }
    const codeAt = (row: number, column: number): number =>
      out
        ? Math.floor(row / length) * vectorColumns + column - from
        : row * vectorColumns + Math.floor((column - from) / length)
    return { from, to, scaleOf, biasOf, entry, codeAt }
  }

  return {
    transpose(out, x) {
      checkShape('out', out, x.columns, Math.max(out.columns, x.rows))
      const [y, values] = [floats(out), floats(x)]
      y.fill(0)
      for (let row = 0; row < x.rows; row++) {
        for (let column = 0; column < x.columns; column++) {
          y[column * out.columns + row] = values[row * x.columns + column]
        }
      }
    },

    feedbackVectors(codes, weight, factor, options) {
      const { rows, columns } = weight
      const { length, along, tables } = options
      checkShape('factor', factor, columns, columns)
      const { from, to, scaleOf, biasOf, entry, codeAt } = prepare(codes, weight, options)
      const [w, u] = [floats(weight), floats(factor)]
      const feed = (row: number, column: number, error: number, after: number): void => {
        for (let k = after; k < columns; k++)
          w[row * columns + k] -= error * u[column * columns + k]
      }
      if (along === 'out') {
        for (let j = from; j < to; j++) {
          for (let row = 0; row < rows; row += length) {
            const high = Math.min(length, rows - row)
            let rest = Array.from({ length }, (_, e) => {
              if (e >= high) return 0
              return quotient(w[(row + e) * columns + j] - biasOf(j), scaleOf(row + e, j))
            })
            const sum = new Array<number>(length).fill(0)
            tables.forEach(({ values, entries }, stage) => {
              const code = nearestOf(rest, floats(values), entries, length)
              integers(codes[stage])[codeAt(row, j)] = code
              const c = entry(stage, row, code)
              rest = rest.map((x, e) => x - c[e])
              for (let e = 0; e < length; e++) sum[e] += c[e]
            })
            for (let e = 0; e < high; e++) {
              const at = (row + e) * columns + j
              const q = sum[e] * scaleOf(row + e, j) + biasOf(j)
              const error = (w[at] - q) / u[j * columns + j]
              w[at] = q
              feed(row + e, j, error, j + 1)
            }
          }
        }
        return
      }
      for (let j = from; j < to; j += length) {
        const d = Math.min(length, to - j)
        const triangle = inverseTriangle(u, columns, j, d)
        /** v·T: what distances are measured in. */
        const turn = (v: ArrayLike<number>): number[] =>
          Array.from({ length: d }, (_, b) => {
            let sum = 0
            for (let a = 0; a <= b; a++) sum += v[a] * triangle[a][b]
            return sum
          })
        for (let row = 0; row < rows; row++) {
          const at = row * columns + j
          const scale = scaleOf(row, j)
          let rest = turn(Array.from({ length: d }, (_, e) => quotient(w[at + e], scale)))
          const sum = new Array<number>(d).fill(0)
          tables.forEach(({ entries }, stage) => {
            const turned = Array.from({ length: entries }, (_, code) =>
              turn(entry(stage, row, code)),
            ).flat()
            const code = nearestOf(rest, turned, entries, d)
            integers(codes[stage])[codeAt(row, j)] = code
            rest = rest.map((x, e) => x - turned[code * d + e])
            for (let e = 0; e < d; e++) sum[e] += entry(stage, row, code)[e]
          })
          for (let e = 0; e < d; e++) {
            w[at + e] = sum[e] * scale
            feed(row, j + e, rest[e] * scale, j + d)
          }
        }
      }
    },

    scatterVectors(sums, x, codes, options) {
      const { rows, columns } = x
      const { length, along, tables, tableRows = rows } = options
      const { from, to, scaleOf, codeAt } = prepare(codes, x, options)
      if (sums.length !== tables.length) {
        throw new LowbitError('bad-shape', `${sums.length} sums for ${tables.length} tables`)
      }
      tables.forEach(({ values, entries }, stage) => {
        checkShape('sums', sums[stage], values.rows, length)
        const total = new Float64Array(values.rows * length)
        for (let row = 0; row < rows; row++) {
          for (let j = from; j < to; j++) {
            const element = along === 'out' ? row % length : (j - from) % length
            const code = integers(codes[stage])[codeAt(row, j)]
            const at = (Math.floor(row / tableRows) * entries + code) * length + element
            total[at] += floats(x)[row * columns + j] * scaleOf(row, j)
          }
        }
        floats(sums[stage]).set(total)
      })
    },

    decodeVectors(out, codes, options) {
      const { rows, columns } = out
      const { length, along, tables } = options
      const { from, to, scaleOf, biasOf, entry, codeAt } = prepare(codes, out, options)
      for (let row = 0; row < rows; row++) {
        for (let j = from; j < to; j++) {
          const element = along === 'out' ? row % length : (j - from) % length
          const sum = tables.reduce((total, _, stage) => {
            return total + entry(stage, row, integers(codes[stage])[codeAt(row, j)])[element]
          }, 0)
          floats(out)[row * columns + j] = sum * scaleOf(row, j) + biasOf(j)
        }
      }
    },

    descendVectors(codes, decoded, weight, hessian, options) {
      const { rows, columns } = weight
      const { length, along, tables, damping, neighbours } = options
      checkShape('decoded', decoded, rows, columns)
      checkShape('hessian', hessian, columns, columns)
      if (along !== 'out') throw new LowbitError('bad-shape', 'only along the rows')
      if (neighbours.length !== tables.length) {
        throw new LowbitError('bad-shape', 'neighbours for each table')
      }
      const { from, to, scaleOf, biasOf, entry, codeAt } = prepare(codes, weight, options)
      tables.forEach(({ entries }, stage) => {
        checkShape('neighbours', neighbours[stage], entries, neighbours[stage].columns)
      })
      const [w, q, h] = [floats(weight), floats(decoded), floats(hessian)]
      for (let row = 0; row < rows; row += length) {
        const high = Math.min(length, rows - row)
        for (let j = from; j < to; j++) {
          const power = h[j * columns + j] + damping
          const target = Array.from({ length: high }, (_, e) => {
            const at = (row + e) * columns
            let slope = damping * (w[at + j] - q[at + j])
            for (let k = 0; k < columns; k++) slope += (w[at + k] - q[at + k]) * h[k * columns + j]
            return power > 0 ? q[at + j] + slope / power : q[at + j]
          })
          const at = codeAt(row, j)
          const value = (e: number): number =>
            tables.reduce((sum, _, i) => sum + entry(i, row, integers(codes[i])[at])[e], 0)
          let changed = false
          tables.forEach((_, stage) => {
            const c = integers(codes[stage])
            const mine = entry(stage, row, c[at])
            const x = target.map((t, e) => {
              const scale = scaleOf(row + e, j)
              return quotient(t - biasOf(j), scale) - (value(e) - mine[e])
            })
            const near = neighbours[stage]
            let best = c[at]
            let least = Number.POSITIVE_INFINITY
            for (let i = 0; i < near.columns; i++) {
              const code = integers(near)[c[at] * near.columns + i]
              const candidate = entry(stage, row, code)
              let sum = 0
              for (let e = 0; e < high; e++) {
                sum += ((x[e] - candidate[e]) * scaleOf(row + e, j)) ** 2
              }
              if (sum < least) [least, best] = [sum, code]
            }
            if (best !== c[at]) changed = true
            c[at] = best
          })
          if (!changed) continue
          for (let e = 0; e < high; e++) {
            q[(row + e) * columns + j] = value(e) * scaleOf(row + e, j) + biasOf(j)
          }
        }
      }
    },
  }
}

const quotient = (w: number, scale: number): number => (scale === 0 ? 0 : w / scale)

/** The inverse of the upper triangular d × d block of U at (j, j). */
function inverseTriangle(u: Float32Array, columns: number, j: number, d: number): number[][] {
  const at = (a: number, b: number): number => u[(j + a) * columns + j + b]
  const out = Array.from({ length: d }, () => new Array<number>(d).fill(0))
  for (let b = 0; b < d; b++) {
    for (let a = b; a >= 0; a--) {
      let sum = a === b ? 1 : 0
      for (let m = a + 1; m <= b; m++) sum -= at(a, m) * out[m][b]
      out[a][b] = sum / at(a, a)
    }
  }
  return out
}
