/** What a section found: rows for people and for machines. */

import type { Usage } from './measure.ts'

export interface Row {
  /** What was measured: "GEMM f32 512³". */
  readonly what: string
  readonly who: string
  readonly unit: string
  readonly perCpuSecond?: number
  readonly perSecond?: number
  /** lowbit's figure per CPU second ÷ this one's; nothing for lowbit itself. */
  readonly ratio?: number
  /** A reason for being left out, or a remark. */
  readonly note?: string
}

/** Figures of one measurement become rows; `lowbit` is what the others are compared with. */
export function compare(
  what: string,
  unit: string,
  figures: readonly { name: string; perCpuSecond: number; perSecond: number; note?: string }[],
  lowbit: string,
): Row[] {
  const own = figures.find(({ name }) => name === lowbit)
  return figures.map(({ name, perCpuSecond, perSecond, note }) => ({
    what,
    who: name,
    unit,
    perCpuSecond,
    perSecond,
    ...(own && name !== lowbit && { ratio: own.perCpuSecond / perCpuSecond }),
    ...(note && { note }),
  }))
}

const number = (value: number | undefined): string =>
  value === undefined
    ? ''
    : value.toPrecision(3).includes('e')
      ? value.toFixed(0)
      : value.toPrecision(3)

/** An aligned table; a repeated `what` is printed once. */
export function table(rows: readonly Row[]): string {
  const cells = rows.map((row, i) => [
    row.what === rows[i - 1]?.what ? '' : row.what,
    row.who,
    number(row.perCpuSecond),
    number(row.perSecond),
    row.perCpuSecond === undefined ? '' : row.unit,
    row.ratio === undefined ? '' : `${row.ratio.toFixed(2)}×`,
    row.note ?? '',
  ])
  const head = ['', '', 'per CPU s', 'per s', 'unit', 'lowbit is', '']
  const widths = head.map((title, i) =>
    Math.max(title.length, ...cells.map((row) => row[i].length)),
  )
  const right = new Set([2, 3, 5])
  return [head, ...cells]
    .map((row) =>
      row
        .map((cell, i) => (right.has(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i])))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** A peer's CPU seconds: measured here, or as they were told, with the reason. */
export interface PeerSeconds {
  readonly who: string
  readonly cpu: number
  readonly note?: string
}

export function againstPeer(
  who: string,
  measured: number | undefined,
  told: number,
  why: string,
): PeerSeconds {
  if (measured !== undefined) return { who, cpu: measured }
  return { who, cpu: told, note: `a figure of an earlier session, not run here: ${why}` }
}

/** One piece of work by lowbit, and by a peer of which only the CPU seconds are known. */
export function runs(what: string, own: Usage, peer: PeerSeconds, note?: string): Row[] {
  const seconds = (cpu: number, more?: string) =>
    [`${cpu.toPrecision(3)} CPU s`, ...(more ? [more] : [])].join('; ')
  return [
    {
      ...{ what, who: 'lowbit', unit: 'runs', note: seconds(own.cpu, note) },
      ...{ perCpuSecond: 1 / own.cpu, perSecond: 1 / own.wall },
    },
    {
      ...{ what, who: peer.who, unit: 'runs', perCpuSecond: 1 / peer.cpu },
      ...{ ratio: peer.cpu / own.cpu, note: seconds(peer.cpu, peer.note) },
    },
  ]
}
