/** What was done to each layer, as tables. */

import { duration, percent } from '@lowbit/inspection'
import type { ModuleReport } from '@lowbit/pipeline'
import { type Column, table } from '../terminal/table.ts'

export interface Layer extends ModuleReport {
  /** Unknown where an earlier run did it. */
  readonly seconds: number | null
}

/** More modules than this get a row for each block instead. */
const MOST_ROWS = 14

/** "model.layers.3.self_attn.q_proj" → "model.layers.3" and "q_proj". */
function split(module: string): { block: string; role: string } {
  const match = /^(.*\.\d+)\.(.+)$/.exec(module)
  if (!match) return { block: module, role: '' }
  return { block: match[1], role: match[2].split('.').at(-1) ?? match[2] }
}

export function layerTable(layers: readonly Layer[]): string {
  return layers.length <= MOST_ROWS ? byModule(layers) : byBlock(layers)
}

const right = (title: string): Column => ({ title, align: 'right' })

const seconds = (layers: readonly Layer[]): string => {
  if (layers.some((layer) => layer.seconds === null)) return 'earlier'
  return duration(layers.reduce((sum, layer) => sum + (layer.seconds ?? 0), 0))
}

const bits = (layers: readonly Layer[]): string => {
  const weights = layers.reduce((sum, { rows, columns }) => sum + rows * columns, 0)
  const total = layers.reduce((sum, layer) => sum + layer.bits * layer.rows * layer.columns, 0)
  return (total / weights).toFixed(3)
}

function byModule(layers: readonly Layer[]): string {
  return table(
    ['module', 'method', right('bits'), right('error'), right('time')],
    layers.map((layer) => [
      layer.module,
      `${layer.method} ${layer.label}`,
      bits([layer]),
      percent(layer.error),
      seconds([layer]),
    ]),
  )
}

function byBlock(layers: readonly Layer[]): string {
  const blocks = new Map<string, Layer[]>()
  const roles = new Set<string>()
  for (const layer of layers) {
    const { block, role } = split(layer.module)
    blocks.set(block, [...(blocks.get(block) ?? []), layer])
    if (role) roles.add(role)
  }
  const methods = new Set(layers.map(({ method, label }) => `${method} ${label}`))
  const mixed = methods.size > 1
  const shown = (role: string): string => role.replace(/_proj$/, '')
  return table(
    [
      'block',
      ...(mixed ? ['method'] : []),
      right('bits'),
      ...[...roles].map((role) => right(shown(role))),
      right('time'),
    ],
    [...blocks].map(([block, inside]) => [
      block,
      ...(mixed ? [[...new Set(inside.map(({ method }) => method))].join(', ')] : []),
      bits(inside),
      ...[...roles].map((role) => {
        const layer = inside.find(({ module }) => split(module).role === role)
        if (layer) return percent(layer.error)
        return ''
      }),
      seconds(inside),
    ]),
  )
}

/** The mean over layers, each weighed by its weights. */
export function meanError(layers: readonly Layer[]): number {
  const weights = layers.reduce((sum, { rows, columns }) => sum + rows * columns, 0)
  const lost = layers.reduce((sum, layer) => sum + layer.error * layer.rows * layer.columns, 0)
  return weights > 0 ? lost / weights : 0
}
