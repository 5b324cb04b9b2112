import { expect, it } from 'vitest'
import { type ModuleReport, RUINED, ruinedModules } from './report.ts'

const report = (
  module: string,
  error: number,
  errorOf: ModuleReport['errorOf'] = 'output',
): ModuleReport => ({
  ...{ module, method: 'palettize', label: '', rows: 1, columns: 1, bits: 4, error, errorOf },
})

it('names the matrices whose outputs are lost, the worst first', () => {
  const reports = [
    report('a', 0.01),
    report('b', RUINED + 0.01),
    report('c', 0.9, 'weight'),
    report('d', 0.99),
  ]
  expect(ruinedModules(reports).map(({ module }) => module)).toEqual(['d', 'b'])
})
