import { existsSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { errorOf, runCli, runJson, temporaryFolder } from '../testing/run-cli.ts'

const LESS = ['--samples', '1', '--length', '64']
const palettes = ['quantize', 'demo', '--method', 'palettize', '--no-feedback', ...LESS]

interface Allocation {
  target: number
  bitsPerWeight: number
  curve: { bits: number; loss: number }[]
  modules: { module: string; bits: number }[]
}

describe('--target-bits', () => {
  it('meets the target with a mix, and says which and what others would lose', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const { code, json } = await runJson([...palettes, '--target-bits', '3.5', '--out', out])
    expect(code).toBe(0)
    const allocation = json.allocation as Allocation
    expect(json.bitsPerWeight).toBeCloseTo(allocation.bitsPerWeight, 9)
    expect(json.bitsPerWeight).toBeLessThanOrEqual(3.5)
    expect(json.bitsPerWeight).toBeGreaterThan(3.45)
    const { curve, modules } = allocation
    for (let i = 1; i < curve.length; i++) {
      expect(curve[i].bits).toBeGreaterThan(curve[i - 1].bits)
      expect(curve[i].loss).toBeLessThan(curve[i - 1].loss)
    }
    expect(curve.map(({ bits }) => bits)).toContain(allocation.bitsPerWeight)
    expect(new Set(modules.map(({ bits }) => bits)).size).toBeGreaterThan(1)
    const layers = json.layers as { module: string; bits: number }[]
    expect(modules.map(({ module }) => module).sort()).toEqual(
      layers.map(({ module }) => module).sort(),
    )
    for (const { module, bits } of modules) {
      expect([1, 2, 3, 4, 6, 8]).toContain(bits)
      const layer = layers.find((one) => one.module === module)!
      expect(Math.floor(layer.bits)).toBe(bits)
    }
  })

  it('takes any method with bits, and only what --match means; prints the curve', async () => {
    const out = path.join(temporaryFolder(), 'out')
    const { code, stdout } = await runCli([
      ...['quantize', 'demo', '--method', 'rtn', '--match', 'model.layers.*.mlp.*'],
      ...['--target-bits', '5', '--out', out],
    ])
    expect(code).toBe(0)
    expect(stdout).toMatch(/loss of plain rounding/)
    expect(stdout).toMatch(/(4\.9\d\d|5\.000) .*← chosen/)
  })

  it('refuses what can not be, by name', async () => {
    const out = path.join(temporaryFolder(), 'never')
    const refused = (...words: string[]) => errorOf([...words, '--out', out])
    for (const target of ['0.5', '20']) {
      expect(await refused(...palettes, '--target-bits', target)).toMatchObject({
        option: 'targetBits',
        message: expect.stringMatching(/1\.\d{3} to 8\.\d{3}/),
      })
    }
    expect(await refused(...palettes, '--target-bits', '3', '--bits', '3')).toMatchObject({
      message: expect.stringContaining('contradicts --bits'),
    })
    const pq = await refused('quantize', 'demo', '--method', 'pq', '--target-bits', '3')
    expect(pq).toMatchObject({ message: expect.stringContaining('palettize') })
    const unique = ['--mode', 'unique', '--target-bits', '3']
    expect(await refused(...palettes.slice(0, 4), ...unique)).toMatchObject({
      message: expect.stringContaining('mode unique finds'),
    })
    expect(existsSync(out)).toBe(false)
  })
})
