/**
 * The passes that choose vectors column by column. A workgroup has the rows of one vector, and goes through some
 * columns by itself, since what it needs of others lies in the factor or the Hessian; what it leaves goes to all later
 * columns in one product.
 */

import { plain, product } from '../algebra/product.ts'
import { borrowing, type Device, type Span } from '../gpu/device.ts'
import { bestOf, elementwise, LANES, remembered, type Shader } from '../gpu/shader.ts'
import {
  FACTOR_CODE,
  FACTOR_PARAMS,
  factorParams,
  gatherFactors,
  gatherTables,
  type VectorPass,
  withCodes,
} from './layout.ts'

/** Columns of a dispatch. */
const STEP = 32

const each = (count: number, line: (i: number) => string, between = '\n'): string =>
  Array.from({ length: count }, (_, i) => line(i)).join(between)

const shaders = new Map<string, Shader>()

const stageParams = (stages: number, ...names: string[]): Shader['params'] =>
  Object.fromEntries(
    Array.from({ length: stages }, (_, s) =>
      names.map((name) => [`${name}${s}`, 'u32' as const]),
    ).flat(),
  )

const start = (lanes: number, length: number): string => `
var<workgroup> reduced: array<f32, ${lanes}>;
${bestOf(lanes)}
${FACTOR_CODE}
var<workgroup> rest: array<f32, 16>;
var<workgroup> sum: array<f32, 16>;
var<workgroup> value: array<f32, 16>;
var<workgroup> err: array<f32, ${STEP * length}>;
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) id: vec3u, @builtin(num_workgroups) total: vec3u, @builtin(local_invocation_index) lane: u32) {
  let group = group_of(id, total);
  if (group >= p.groups) { return; }`

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

const stages = (
  { entries }: VectorPass,
  starts: readonly number[],
  codes: readonly number[],
): Record<string, number> =>
  Object.fromEntries(
    entries.flatMap((count, s) => [
      ...[[`entries${s}`, count] as const, [`table${s}`, starts[s]] as const],
      [`code${s}`, codes[s]] as const,
    ]),
  )

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

/** Threads that share out the candidates of a vector. */
const CANDIDATES = 32

const descendOut = (length: number, count: number): Shader =>
  remembered(shaders, `descend ${length} × ${count}`, () => {
    const fours = Math.ceil(length / 4)
    const part = (s: number) => `part${s}`
    const others = (s: number) =>
      Array.from({ length: count }, (_, i) => (i === s ? '' : ` - ${part(i)}[lane]`)).join('')
    return {
      name: `coordinate descent over vectors of ${length}`,
      reads: { h: 'f32', tables: 'vec4f', near: 'u32', factors: 'f32', line: 'f32' },
      writes: { decoded: 'f32', codes: 'u32', errors: 'f32' },
      params: {
        ...{ ...FACTOR_PARAMS, rows: 'u32', begin: 'u32', size: 'u32', first: 'u32', wide: 'u32' },
        damping: 'f32',
        ...stageParams(count, 'table', 'code', 'near', 'candidates'),
      },
      code: `
${each(count, (s) => `var<workgroup> ${part(s)}: array<f32, 16>;`)}
var<workgroup> scales: array<f32, 16>;
${start(CANDIDATES, length)}
  let row = group * ${length}u + lane;
  let mine = lane < ${length}u;
  let live = mine && row < p.rows;
  for (var c = 0u; c < p.size; c++) {
    let j = p.begin + c;
    let place_of_codes = group * p.wide + j - p.first;
    ${each(count, (s) => `var hit${s} = codes[p.codes_at + p.code${s} + place_of_codes];`)}
    ${each(count, (s) => `let old${s} = hit${s};`)}
    if (lane < ${fours * 4}u) {
      var goal = 0.0;
      var scale = 0.0;
      if (live) {
        var slope = line[p.line_at + row * p.columns + j];
        for (var k = 0u; k < c; k++) {
          slope -= err[k * ${length}u + lane] * h[p.h_at + (p.begin + k) * p.columns + j];
        }
        let power = h[p.h_at + j * p.columns + j] + p.damping;
        var aim = decoded[p.decoded_at + row * p.columns + j];
        if (power > 0.0) { aim += slope / power; }
        scale = scale_of(row, j);
        if (scale != 0.0) { goal = (aim - bias_of(j)) / scale; }
      }
      value[lane] = goal;
      scales[lane] = scale;
      ${each(count, (s) => `${part(s)}[lane] = tables[p.table${s} + hit${s} * ${fours}u + lane / 4u][lane % 4u];`)}
    }
    workgroupBarrier();
    ${each(
      count,
      (s) => `{
    if (lane < ${fours * 4}u) { rest[lane] = value[lane]${others(s)}; }
    workgroupBarrier();
    ${each(
      fours,
      (
        v,
      ) => `let r${v} = vec4f(rest[${4 * v}], rest[${4 * v + 1}], rest[${4 * v + 2}], rest[${4 * v + 3}]);
    let s${v} = vec4f(scales[${4 * v}], scales[${4 * v + 1}], scales[${4 * v + 2}], scales[${4 * v + 3}]);`,
    )}
    var least = 3.4e38;
    var best = 0u;
    let first_near = p.near_at + p.near${s} + hit${s} * p.candidates${s};
    for (var i = lane; i < p.candidates${s}; i += ${CANDIDATES}u) {
      let at = p.table${s} + near[first_near + i] * ${fours}u;
      ${each(fours, (v) => `let d${v} = (r${v} - tables[at + ${v}u]) * s${v};`)}
      let far = ${each(fours, (v) => `dot(d${v}, d${v})`, ' + ')};
      if (far < least) { least = far; best = i; }
    }
    reduced[lane] = least;
    places[lane] = best;
    hit${s} = near[first_near + best_of(lane)];
    if (lane < ${fours * 4}u) {
      ${part(s)}[lane] = tables[p.table${s} + hit${s} * ${fours}u + lane / 4u][lane % 4u];
    }
    workgroupBarrier(); }`,
    )}
    let changed = ${each(count, (s) => `hit${s} != old${s}`, ' || ')};
    if (mine) {
      var error = 0.0;
      if (live && changed) {
        let at = p.decoded_at + row * p.columns + j;
        let q = (${each(count, (s) => `${part(s)}[lane]`, ' + ')}) * scales[lane] + bias_of(j);
        error = q - decoded[at];
        decoded[at] = q;
      }
      err[c * ${length}u + lane] = error;
      if (live) { errors[p.errors_at + row * ${STEP}u + c] = error; }
    }
    if (lane == 0u) {
      ${each(count, (s) => `codes[p.codes_at + p.code${s} + place_of_codes] = hit${s};`)}
    }
    workgroupBarrier();
  }
}`,
    }
  })

const difference = elementwise('what vectors leave', {
  reads: { a: 'f32', b: 'f32' },
  writes: { out: 'f32' },
  params: {},
  body: 'out[p.out_at + i] = a[p.a_at + i] - b[p.b_at + i];',
})

/** `near` are the neighbours of each stage's entries, u16 [entries, candidates]. */
export function runDescent(
  device: Device,
  pass: VectorPass,
  { w, decoded, h }: { readonly w: Span; readonly decoded: Span; readonly h: Span },
  near: readonly (Span & { readonly columns: number })[],
  damping: number,
): void {
  const { rows, columns, length, from, to, wide, entries } = pass
  borrowing(device, (take) => {
    const factors = gatherFactors(device, pass, take)
    const { span: tables, starts } = gatherTables(device, pass, take)
    const size = rows * columns
    const [rest, line, errors] = [take(size), take(size), take(rows * STEP)]
    const all = take(near.reduce((sum, { length: count }) => sum + count, 0))
    const nearStarts: number[] = []
    for (const [i, span] of near.entries()) {
      nearStarts.push(i === 0 ? 0 : nearStarts[i - 1] + near[i - 1].length)
      device.copy({ ...all, at: nearStarts[i], length: span.length }, span)
    }
    device.run(
      difference,
      { a: w, b: decoded, out: rest },
      { count: size },
      Math.ceil(size / LANES),
    )
    device.copy(line, rest)
    product(device, {
      ...{ out: plain(line, columns, from), a: plain(rest, columns), b: plain(h, columns, from) },
      ...{ rows, columns: to - from, depth: columns, keep: damping },
    })
    withCodes(device, pass, (codes, codeStarts) => {
      for (let begin = from; begin < to; begin += STEP) {
        const here = Math.min(STEP, to - begin)
        const candidates = near.flatMap(({ columns: count }, s) => [
          [`candidates${s}`, count] as const,
          [`near${s}`, nearStarts[s]] as const,
        ])
        device.run(
          descendOut(length, entries.length),
          { h, tables, near: all, factors, line, decoded, codes, errors },
          {
            ...{ ...factorParams(pass), ...stages(pass, starts, codeStarts) },
            ...{ ...Object.fromEntries(candidates), damping },
            ...{ rows, begin, size: here, first: from, wide },
          },
          Math.ceil(rows / length),
        )
        const end = begin + here
        if (end === to) continue
        product(device, {
          out: plain(line, columns, end),
          a: plain(errors, STEP),
          b: plain(h, columns, begin * columns + end),
          ...{ rows, columns: to - end, depth: here, factor: -1, keep: 1 },
        })
      }
    })
  })
}
