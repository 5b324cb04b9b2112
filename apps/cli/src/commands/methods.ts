/** lowbit methods */

import {
  type Format,
  type Kernels,
  LowbitError,
  NAMED_GRIDS,
  type QuantizerPlugin,
} from '@lowbit/core'
import type { Command } from 'commander'
import { allowedValues, describeFlags } from '../flags/from-schema.ts'
import { type Compatibility, findCompatibility } from '../inspection/compatibility.ts'
import { DEFAULT_DEVICE, DEVICES, FORMATS, QUANTIZERS } from '../plugins.ts'
import type { Action } from '../program.ts'
import type { Session } from '../session.ts'
import { paint } from '../terminal/style.ts'
import { markdownTable, table } from '../terminal/table.ts'

interface Flags {
  readonly markdown?: boolean
}

export function define(command: Command, run: (action: Action) => Promise<void>): void {
  command
    .option('--markdown', 'the table of methods, formats and devices for a README')
    .option('--json', 'print one JSON object on standard output and nothing else')
    .action((flags: Flags) => run((session) => listMethods(flags, session)))
}

async function listMethods(flags: Flags, session: Session): Promise<void> {
  const devices = new Map<string, Kernels>()
  // A README's table is the same on every machine, whatever GPU is in it.
  for (const device of flags.markdown ? [DEFAULT_DEVICE] : Object.keys(DEVICES)) {
    try {
      devices.set(device, await session.kernels({ device, threads: 1 }, true))
    } catch (error) {
      if (!(error instanceof LowbitError && error.code === 'no-device')) throw error
      if (!session.json) session.note(`${device} is left out: ${error.message}`)
    }
  }
  const matrix = await findCompatibility(QUANTIZERS, FORMATS, devices)
  session.result({
    methods: QUANTIZERS.map(describeMethod),
    grids: NAMED_GRIDS,
    formats: FORMATS.map(({ name, summary, engines }) => ({ name, summary, engines })),
    devices: [...devices].map(([name, { variant }]) => ({ name, variant })),
    matrix,
  })
  if (session.json) return
  if (flags.markdown) {
    session.print(markdownTable(['method', 'grids', 'devices', 'formats'], summaryRows(matrix)))
    return
  }
  for (const plugin of QUANTIZERS) session.print(methodText(plugin))
  const grids = Object.entries(NAMED_GRIDS).map(([name, { summary }]) => [name, summary])
  session.print(`${heading('grids')}${table(['name', ''], grids)}\n`)
  session.print(`${heading('formats')}${formatTable(FORMATS)}\n`)
  session.print(`${heading('what goes with what')}${matrixTable(matrix, [...devices.keys()])}`)
}

const heading = (text: string): string => `${paint('bold', text)}\n`

function describeMethod({ name, summary, source, options }: QuantizerPlugin) {
  return { name, summary, source, options: describeFlags(options) }
}

function methodText(plugin: QuantizerPlugin): string {
  const { name, summary, source, options } = plugin
  const rows = describeFlags(options).map((flag) => [
    flag.flag,
    allowedValues(flag),
    flag.default === undefined ? '' : String(flag.default),
    flag.summary,
  ])
  const from = source ? paint('dim', `  ${source}\n`) : ''
  return `${paint('bold', name)}  ${summary}\n${from}${table(['option', 'values', 'default', ''], rows)}\n`
}

function formatTable(formats: readonly Format[]): string {
  return table(
    ['name', 'loaded by', ''],
    formats.map(({ name, engines, summary }) => [name, engines.join(', '), summary]),
  )
}

/** A row for each method and set of grids that behave alike. */
function alike(matrix: readonly Compatibility[]): { grids: string[]; row: Compatibility }[] {
  const groups = new Map<string, { grids: string[]; row: Compatibility }>()
  for (const row of matrix) {
    const fits = Object.entries(row.formats).map(([name, why]) => name + (why === null))
    const key = [row.method, ...fits, JSON.stringify(row.devices)].join(' ')
    const group = groups.get(key)
    if (group) group.grids.push(row.grid)
    else groups.set(key, { grids: [row.grid], row })
  }
  return [...groups.values()]
}

function summaryRows(matrix: readonly Compatibility[]): string[][] {
  return alike(matrix).map(({ grids, row }) => [
    row.method,
    grids.join(', '),
    namesOf(row.devices, (runs) => runs),
    namesOf(row.formats, (why) => why === null),
  ])
}

const namesOf = <T>(by: Readonly<Record<string, T>>, fits: (value: T) => boolean): string =>
  Object.entries(by)
    .filter(([, value]) => fits(value))
    .map(([name]) => name)
    .join(', ')

function matrixTable(matrix: readonly Compatibility[], devices: readonly string[]): string {
  const sign = (fits: boolean): string => (fits ? paint('green', '✓') : paint('dim', '–'))
  return table(
    ['method', 'grids', ...devices, ...FORMATS.map(({ name }) => name)],
    alike(matrix).flatMap(({ grids, row }) =>
      wrapped(grids, 44).map((line, i) =>
        i > 0
          ? ['', line]
          : [
              row.method,
              line,
              ...devices.map((device) => sign(row.devices[device])),
              ...FORMATS.map(({ name }) => sign(row.formats[name] === null)),
            ],
      ),
    ),
  )
}

function wrapped(words: readonly string[], width: number): string[] {
  const lines = ['']
  for (const word of words) {
    const line = lines[lines.length - 1]
    if (line === '') lines[lines.length - 1] = word
    else if (line.length + word.length + 2 <= width) lines[lines.length - 1] = `${line}, ${word}`
    else lines.push(word)
  }
  return lines
}
