/** Aligned tables; numbers go to the right. */

import { stripVTControlCharacters } from 'node:util'
import { paint } from './style.ts'

export interface Column {
  readonly title: string
  readonly align?: 'left' | 'right'
}

const width = (text: string): number => [...stripVTControlCharacters(text)].length

export function table(
  columns: readonly (Column | string)[],
  rows: readonly (readonly string[])[],
): string {
  const heads = columns.map((column) => (typeof column === 'string' ? { title: column } : column))
  const widths = heads.map(({ title }, i) =>
    Math.max(width(title), ...rows.map((row) => width(row[i] ?? ''))),
  )
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => {
        const gap = ' '.repeat(Math.max(0, widths[i] - width(cell)))
        return heads[i].align === 'right' ? gap + cell : cell + gap
      })
      .join('  ')
      .trimEnd()
  const titles = line(heads.map(({ title }) => title))
  return [paint('dim', titles), ...rows.map((row) => line(heads.map((_, i) => row[i] ?? '')))]
    .map((text) => `  ${text}\n`)
    .join('')
}

/** Names on the left, values on the right of them. */
export function facts(rows: readonly (readonly [name: string, value: string])[]): string {
  const widest = Math.max(...rows.map(([name]) => width(name)))
  return rows.map(([name, value]) => `  ${paint('dim', name.padEnd(widest))}  ${value}\n`).join('')
}

/** The same as a table of a README. */
export function markdownTable(
  columns: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`
  return line(columns) + line(columns.map(() => '---')) + rows.map(line).join('')
}
