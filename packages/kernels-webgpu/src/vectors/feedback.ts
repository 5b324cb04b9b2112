/** The feedback pass over vectors: each takes its nearest entries, and its error goes into later columns. */

import { plain, product } from '../algebra/product.ts'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { each, elementwise, LANES, remembered, type Shader } from '../gpu/shader.ts'
import {
  FACTOR_PARAMS,
  factorParams,
  gatherFactors,
  gatherTables,
  type VectorPass,
  withCodes,
} from './layout.ts'
import { STEP, stageParams, stages, start } from './pass.ts'

const shaders = new Map<string, Shader>()

/** `place` becomes the entry of stage `s` that is nearest to `rest`, in the tables at `where`. */
const search = (lanes: number, fours: number, s: number, from: string, offset: string): string => `
    ${each(fours, (v) => `let r${v} = vec4f(rest[${4 * v}], rest[${4 * v + 1}], rest[${4 * v + 2}], rest[${4 * v + 3}]);`)}
    var best = 0u;
    var least = 3.4e38;
    for (var i = lane; i < p.entries${s}; i += ${lanes}u) {
      let at = ${offset} + i * ${fours}u;
      ${each(fours, (v) => `let d${v} = r${v} - ${from}[at + ${v}u];`)}
      let far = ${each(fours, (v) => `dot(d${v}, d${v})`, ' + ')};
      if (far < least) { least = far; best = i; }
    }
    reduced[lane] = least;
    places[lane] = best;
    let place = best_of(lane);`

const lanesFor = (entries: number): number => (entries >= 1024 ? 256 : entries > 64 ? 64 : 32)

const feedbackOut = (length: number, stages: number, lanes: number): Shader =>
  remembered(shaders, `feedback out ${length} × ${stages}, ${lanes}`, () => {
    const fours = Math.ceil(length / 4)
    return {
      name: `feedback over vectors of ${length} rows`,
      reads: { u: 'f32', tables: 'vec4f', factors: 'f32' },
      writes: { line: 'f32', codes: 'u32', errors: 'f32' },
      params: {
        ...{ ...FACTOR_PARAMS, rows: 'u32', begin: 'u32', size: 'u32', first: 'u32', wide: 'u32' },
        ...stageParams(stages, 'entries', 'table', 'code'),
      },
      code: `${start(lanes, length)}
  let row = group * ${length}u + lane;
  let mine = lane < ${length}u;
  let live = mine && row < p.rows;
  for (var c = 0u; c < p.size; c++) {
    let j = p.begin + c;
    if (mine) {
      var v = 0.0;
      var r = 0.0;
      if (live) {
        v = line[p.line_at + row * p.columns + j];
        for (var k = 0u; k < c; k++) {
          v -= err[k * ${length}u + lane] * u[p.u_at + (p.begin + k) * p.columns + j];
        }
        let scale = scale_of(row, j);
        if (scale != 0.0) { r = (v - bias_of(j)) / scale; }
      }
      value[lane] = v;
      rest[lane] = r;
      sum[lane] = 0.0;
    }
    workgroupBarrier();
    ${each(
      stages,
      (s) => `{ ${search(lanes, fours, s, 'tables', `p.table${s}`)}
    if (mine) {
      let x = tables[p.table${s} + place * ${fours}u + lane / 4u][lane % 4u];
      rest[lane] -= x;
      sum[lane] += x;
    }
    if (lane == 0u) { codes[p.codes_at + p.code${s} + group * p.wide + j - p.first] = place; }
    workgroupBarrier(); }`,
    )}
    if (live) {
      let q = sum[lane] * scale_of(row, j) + bias_of(j);
      let error = (value[lane] - q) / u[p.u_at + j * p.columns + j];
      line[p.line_at + row * p.columns + j] = q;
      err[c * ${length}u + lane] = error;
      errors[p.errors_at + row * ${STEP}u + c] = error;
    }
    workgroupBarrier();
  }
}`,
    }
  })

/** For each block of columns the inverse of the factor's triangle there: what distances are measured in. */
const triangles = (length: number): Shader =>
  remembered(shaders, `triangles of ${length}`, () =>
    elementwise(`inverse triangles of ${length}`, {
      reads: { u: 'f32' },
      writes: { out: 'f32' },
      params: { columns: 'u32', first: 'u32', last: 'u32' },
      body: `
  let j = p.first + i * ${length}u;
  let d = min(${length}u, p.last - j);
  var t: array<f32, ${length * length}>;
  for (var b = 0u; b < d; b++) {
    for (var back = 0u; back <= b; back++) {
      let a = b - back;
      var sum = select(0.0, 1.0, a == b);
      for (var m = a + 1u; m <= b; m++) {
        sum -= u[p.u_at + (j + a) * p.columns + j + m] * t[m * ${length}u + b];
      }
      t[a * ${length}u + b] = sum / u[p.u_at + (j + a) * p.columns + j + a];
    }
  }
  for (var e = 0u; e < ${length * length}u; e++) {
    let a = e / ${length}u;
    let b = e % ${length}u;
    out[p.out_at + i * ${length * length}u + e] = select(0.0, t[e], a <= b && b < d);
  }`,
    }),
  )

/** All entries times the triangle of each of some blocks of columns. */
const turnTables = (length: number): Shader => {
  const fours = Math.ceil(length / 4)
  return remembered(shaders, `turned entries of ${length}`, () =>
    elementwise(`entries of ${length} turned`, {
      reads: { tables: 'vec4f', triangles: 'f32' },
      writes: { out: 'f32' },
      params: { total: 'u32', first: 'u32' },
      body: `
  let b = i % ${fours * 4}u;
  let entry = (i / ${fours * 4}u) % p.total;
  let block = p.first + i / (${fours * 4}u * p.total);
  var sum = 0.0;
  if (b < ${length}u) {
    for (var a = 0u; a <= b; a++) {
      let t = triangles[p.triangles_at + (block * ${length}u + a) * ${length}u + b];
      sum += tables[entry * ${fours}u + a / 4u][a % 4u] * t;
    }
  }
  out[p.out_at + i] = sum;`,
    }),
  )
}

const feedbackIn = (length: number, stages: number, lanes: number): Shader =>
  remembered(shaders, `feedback in ${length} × ${stages}, ${lanes}`, () => {
    const fours = Math.ceil(length / 4)
    const home = (s: number) => `p.table${s} + (group / p.table_rows) * p.entries${s} * ${fours}u`
    return {
      name: `feedback over vectors of ${length} columns`,
      reads: { u: 'f32', tables: 'vec4f', turned: 'vec4f', triangles: 'f32', factors: 'f32' },
      writes: { line: 'f32', codes: 'u32', errors: 'f32' },
      params: {
        ...{ ...FACTOR_PARAMS, begin: 'u32', size: 'u32', first: 'u32', wide: 'u32' },
        ...{ table_rows: 'u32', total: 'u32' },
        ...stageParams(stages, 'entries', 'table', 'code'),
      },
      code: `${start(lanes, 1)}
  let row = group;
  for (var c = 0u; c < p.size; c += ${length}u) {
    let j = p.begin + c;
    let live = lane < min(${length}u, p.size - c);
    let scale = scale_of(row, j);
    let block = (j - p.first) / ${length}u;
    let here = c / ${length}u * p.total * ${fours}u;
    if (lane < ${length}u) {
      var r = 0.0;
      if (live) {
        var v = line[p.line_at + row * p.columns + j + lane];
        for (var k = 0u; k < c; k++) {
          v -= err[k] * u[p.u_at + (p.begin + k) * p.columns + j + lane];
        }
        if (scale != 0.0) { r = v / scale; }
      }
      value[lane] = r;
      sum[lane] = 0.0;
    }
    workgroupBarrier();
    if (lane < ${fours * 4}u) {
      var t = 0.0;
      if (live) {
        for (var a = 0u; a <= lane; a++) {
          t += value[a] * triangles[p.triangles_at + (block * ${length}u + a) * ${length}u + lane];
        }
      }
      rest[lane] = t;
    }
    workgroupBarrier();
    ${each(
      stages,
      (s) => `{ ${search(lanes, fours, s, 'turned', `here + ${home(s)}`)}
    if (live) {
      let at = ${home(s)} + place * ${fours}u + lane / 4u;
      rest[lane] -= turned[here + at][lane % 4u];
      sum[lane] += tables[at][lane % 4u];
    }
    if (lane == 0u) { codes[p.codes_at + p.code${s} + row * p.wide + block] = place; }
    workgroupBarrier(); }`,
    )}
    if (live) {
      line[p.line_at + row * p.columns + j + lane] = sum[lane] * scale;
      let error = rest[lane] * scale;
      err[c + lane] = error;
      errors[p.errors_at + row * ${STEP}u + c + lane] = error;
    }
    workgroupBarrier();
  }
}`,
    }
  })

export function runFeedback(device: Device, pass: VectorPass, line: Span, u: Span): void {
  const { rows, columns, length, along, from, to, wide, tableRows, entries } = pass
  const count = entries.length
  const lanes = lanesFor(Math.max(...entries))
  const out = along === 'out'
  borrowing(device, (take) => {
    const factors = gatherFactors(device, pass, take)
    const { span: tables, starts, total } = gatherTables(device, pass, take)
    const errors = take(rows * STEP)
    const step = out ? STEP : Math.floor(STEP / length) * length
    const fours = Math.ceil(length / 4)
    const inverse = out ? undefined : take(Math.ceil((to - from) / length) * length ** 2)
    const turned = out ? undefined : take((step / length) * total * fours * 4)
    if (inverse) {
      const blocks = Math.ceil((to - from) / length)
      const params = { count: blocks, columns, first: from, last: to }
      device.run(triangles(length), { u, out: inverse }, params, Math.ceil(blocks / LANES))
    }
    withCodes(device, pass, (codes, codeStarts) => {
      for (let begin = from; begin < to; begin += step) {
        const size = Math.min(step, to - begin)
        const params = {
          ...{ ...factorParams(pass), ...stages(pass, starts, codeStarts) },
          ...{ rows, begin, size, first: from, wide, table_rows: tableRows, total },
        }
        if (inverse && turned) {
          const all = Math.ceil(size / length) * total * fours * 4
          device.run(
            turnTables(length),
            { tables, triangles: inverse, out: turned },
            { count: all, total, first: (begin - from) / length },
            Math.ceil(all / LANES),
          )
          const spans = { u, tables, turned, triangles: inverse, factors, line, codes, errors }
          device.run(feedbackIn(length, count, lanes), spans, params, rows)
        } else {
          const spans = { u, tables, factors, line, codes, errors }
          device.run(feedbackOut(length, count, lanes), spans, params, Math.ceil(rows / length))
        }
        const end = begin + size
        if (end === columns) continue
        product(device, {
          out: plain(line, columns, end),
          a: plain(errors, STEP),
          b: plain(u, columns, begin * columns + end),
          ...{ rows, columns: columns - end, depth: size, factor: -1, keep: 1 },
        })
      }
    })
  })
}
