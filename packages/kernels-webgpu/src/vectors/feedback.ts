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
import { reach, STEP, squared, stageParams, stages, start } from './pass.ts'

const shaders = new Map<string, Shader>()

/**
 * `place` becomes the entry of stage `s` that is nearest to the `rest` of the thread's own team, in the tables at
 * `where`. An entry that was read is compared with the rests of all teams.
 */
const search = (
  { lanes, length, teams }: Workgroup,
  s: number,
  { from, where, team }: { readonly from: string; readonly where: string; readonly team: string },
): string => {
  const fours = Math.ceil(length / 4)
  const restAt = (t: number, v: number): string =>
    reach(`vec4f(${each(4, (c) => `rest[${16 * t + 4 * v + c}]`, ', ')})`, length, v)
  const apart = (t: number): string => `
      ${each(fours, (v) => `let d${t}_${v} = r${t}_${v} - x${v};`)}
      let far${t} = ${each(fours, (v) => squared(`d${t}_${v}`, length, v), ' + ')};
      if (far${t} < least${t}) { least${t} = far${t}; best${t} = i; }`
  return `
    ${each(teams, (t) => each(fours, (v) => `let r${t}_${v} = ${restAt(t, v)};`))}
    ${each(teams, (t) => `var best${t} = 0u; var least${t} = 3.4e38;`)}
    for (var i = lane; i < p.entries${s}; i += ${lanes}u) {
      let at = ${where} + i * ${fours}u;
      ${each(fours, (v) => `let x${v} = ${reach(`${from}[at + ${v}u]`, length, v)};`)}
      ${each(teams, apart)}
    }
    ${each(teams, (t) => `reduced[${t * lanes}u + lane] = least${t}; places[${t * lanes}u + lane] = best${t};`)}
    let place = best_of(lane, ${team});`
}

interface Workgroup {
  readonly lanes: number
  readonly length: number
  /** Vectors that a workgroup has at a time. */
  readonly teams: number
}

const lanesFor = (entries: number): number => (entries >= 1024 ? 256 : entries > 64 ? 64 : 32)

/** Of large tables entries are read for four vectors at once, where there are enough vectors for all of the device. */
const teamsFor = (entries: number, vectors: number): number =>
  entries >= 1024 && vectors >= MANY ? 4 : 1
const MANY = 64

const feedbackOut = (workgroup: Workgroup, stages: number): Shader => {
  const { lanes, length, teams } = workgroup
  return remembered(shaders, `feedback out ${length} × ${stages}, ${lanes}, ${teams}`, () => {
    const fours = Math.ceil(length / 4)
    const width = length * teams
    return {
      name: `feedback over vectors of ${length} rows`,
      reads: { u: 'f32', tables: 'vec4f', factors: 'f32' },
      writes: { line: 'f32', codes: 'u32', errors: 'f32' },
      params: {
        ...{ ...FACTOR_PARAMS, rows: 'u32', begin: 'u32', size: 'u32', first: 'u32', wide: 'u32' },
        ...stageParams(stages, 'entries', 'table', 'code'),
      },
      code: `${start(lanes, length, teams)}
  let mine = lane < ${width}u;
  let team = min(lane / ${length}u, ${teams - 1}u);
  let e = lane % ${length}u;
  let slot = team * 16u + e;
  let vector = group * ${teams}u + team;
  let row = vector * ${length}u + e;
  let live = mine && row < p.rows;
  for (var c = 0u; c < p.size; c++) {
    let j = p.begin + c;
    if (mine) {
      var v = 0.0;
      var r = 0.0;
      if (live) {
        v = line[p.line_at + row * p.columns + j];
        for (var k = 0u; k < c; k++) {
          v -= err[k * ${width}u + lane] * u[p.u_at + (p.begin + k) * p.columns + j];
        }
        let scale = scale_of(row, j);
        if (scale != 0.0) { r = (v - bias_of(j)) / scale; }
      }
      value[slot] = v;
      rest[slot] = r;
      sum[slot] = 0.0;
    }
    ${each(
      stages,
      (s) => `{
    workgroupBarrier();
    ${search(workgroup, s, { from: 'tables', where: `p.table${s}`, team: 'team' })}
    if (mine) {
      let x = tables[p.table${s} + place * ${fours}u + e / 4u][e % 4u];
      rest[slot] -= x;
      sum[slot] += x;
    }
    if (live && e == 0u) { codes[p.codes_at + p.code${s} + vector * p.wide + j - p.first] = place; } }`,
    )}
    if (live) {
      let q = sum[slot] * scale_of(row, j) + bias_of(j);
      let error = (value[slot] - q) / u[p.u_at + j * p.columns + j];
      line[p.line_at + row * p.columns + j] = q;
      err[c * ${width}u + lane] = error;
      errors[p.errors_at + row * ${STEP}u + c] = error;
    }
  }
}`,
    }
  })
}

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

const feedbackIn = (workgroup: Workgroup, stages: number): Shader => {
  const { lanes, length } = workgroup
  return remembered(shaders, `feedback in ${length} × ${stages}, ${lanes}`, () => {
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
      (s) => `{ ${search(workgroup, s, { from: 'turned', where: `here + ${home(s)}`, team: '0u' })}
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
}

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
          device.run(feedbackIn({ lanes, length, teams: 1 }, count), spans, params, rows)
        } else {
          const spans = { u, tables, factors, line, codes, errors }
          const vectors = Math.ceil(rows / length)
          const teams = teamsFor(Math.max(...entries), vectors)
          const groups = Math.ceil(vectors / teams)
          device.run(feedbackOut({ lanes, length, teams }, count), spans, params, groups)
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
