/** Vectors of weights, one after the other. */

import {
  type ColumnRange,
  type Kernels,
  LowbitError,
  type Tensor,
  type VectorRounding,
} from '@lowbit/core'
import { checkShape, type Memory } from './memory.ts'

type Operations = Pick<
  Kernels,
  | 'transpose'
  | 'nearest'
  | 'clusterSums'
  | 'neighbours'
  | 'feedbackVectors'
  | 'decodeVectors'
  | 'descendVectors'
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

    nearest(codes, x, table, distances) {
      checkShape('codes', codes, x.rows, 1)
      if (distances) checkShape('distances', distances, x.rows, 1)
      checkShape('the table', table, table.rows, x.columns)
      const d = x.columns
      if (d < 1 || d > 16 || table.rows < 1 || table.rows > 65536) {
        throw new LowbitError('bad-shape', `a table of ${table.rows} vectors of ${d}`)
      }
      const [values, points] = [floats(table), floats(x)]
      for (let i = 0; i < x.rows; i++) {
        const at = nearestOf(points.subarray(i * d, (i + 1) * d), values, table.rows, d)
        integers(codes)[i] = at
        if (distances) floats(distances)[i] = between(points, i, values, at, d)
      }
    },

    clusterSums(sums, x, codes, weights) {
      const { rows: n, columns: d } = x
      checkShape('sums', sums, sums.rows, d + 1)
      checkShape('codes', codes, n, 1)
      if (weights) checkShape('weights', weights, n, 1)
      const total = new Float64Array(sums.rows * (d + 1))
      for (let i = 0; i < n; i++) {
        const code = integers(codes)[i]
        if (code >= sums.rows) throw new LowbitError('bad-index', `code ${code} of ${sums.rows}`)
        const weight = weights ? floats(weights)[i] : 1
        for (let e = 0; e < d; e++) total[code * (d + 1) + e] += weight * floats(x)[i * d + e]
        total[code * (d + 1) + d] += weight
      }
      floats(sums).set(total)
    },

    neighbours(out, table) {
      const { rows: entries, columns: d } = table
      checkShape('out', out, entries, out.columns)
      if (out.columns < 1 || out.columns > entries) {
        throw new LowbitError('bad-shape', `${out.columns} neighbours of ${entries}`)
      }
      const values = floats(table)
      for (let i = 0; i < entries; i++) {
        const far = Array.from({ length: entries }, (_, j) =>
          i === j ? -1 : between(values, i, values, j, d),
        )
        const order = Array.from(far.keys()).sort((a, b) => far[a] - far[b] || a - b)
        integers(out).set(order.slice(0, out.columns), i * out.columns)
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

function between(
  a: ArrayLike<number>,
  i: number,
  b: ArrayLike<number>,
  j: number,
  d: number,
): number {
  let sum = 0
  for (let e = 0; e < d; e++) sum += (a[i * d + e] - b[j * d + e]) ** 2
  return sum
}

function nearestOf(
  x: ArrayLike<number>,
  table: ArrayLike<number>,
  entries: number,
  d: number,
): number {
  let best = 0
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < entries; i++) {
    const distance = between(x, 0, table, i, d)
    if (distance < least) [least, best] = [distance, i]
  }
  return best
}

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
