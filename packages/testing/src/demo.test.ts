import { expect, it } from 'vitest'
import { demoPath, readDemoFile, readDemoLogits, readDemoText } from './demo.ts'

it('the demo’s files open', async () => {
  expect(demoPath('config.json')).toMatch(/model.config\.json$/)
  const config = JSON.parse(new TextDecoder().decode(await readDemoFile('config.json')))
  expect(config.model_type).toBe('llama')
  expect((await readDemoText('evaluation')).length).toBeGreaterThan(100_000)
  expect((await readDemoLogits()).length).toBeGreaterThan(96 * 2048 * 4)
})
