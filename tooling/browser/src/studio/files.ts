/** Where models come from, broken ones among them. */

import { strict as assert } from 'node:assert'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type StudioCheck, visit } from './harness.ts'
import { quantizeInNode, serveStudio } from './site.ts'
import { errorShown, openDemo } from './user.ts'

export const FILE_CHECKS: readonly StudioCheck[] = [
  {
    name: 'hostile and broken files are refused by name',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      const demo = path.resolve(import.meta.dirname, '../../../../packages/demo-model/model')
      const good = (name: string): Buffer => readFileSync(path.join(demo, name))
      const whole = good('model.safetensors')
      const giant = Buffer.alloc(64)
      giant.writeBigUInt64LE(2n ** 60n)
      const cases: readonly [RegExp, Record<string, Buffer>][] = [
        [/config\.json/, { 'model.safetensors': whole }],
        [
          /config\.json/,
          { 'config.json': Buffer.from('{"hidden_size": '), 'model.safetensors': whole },
        ],
        [/model\.safetensors/, { 'config.json': good('config.json'), 'model.safetensors': giant }],
        [
          /model\.safetensors/,
          { 'config.json': good('config.json'), 'model.safetensors': whole.subarray(0, 100_000) },
        ],
        [
          /hidden_size/,
          {
            'config.json': Buffer.from('{"model_type":"llama","hidden_size":-1}'),
            'model.safetensors': whole,
          },
        ],
        [
          /quantization-report\.json is damaged/,
          {
            'config.json': good('config.json'),
            'model.safetensors': whole,
            'tokenizer.json': good('tokenizer.json'),
            'quantization-report.json': Buffer.from('{"modules":[{"module":1}]}'),
          },
        ],
      ]
      for (const [expected, files] of cases) {
        const place = mkdtempSync(path.join(tmpdir(), 'lowbit-hostile-'))
        mkdirSync(place, { recursive: true })
        const paths = Object.entries(files).map(([name, bytes]) => {
          const file = path.join(place, name)
          writeFileSync(file, bytes)
          return file
        })
        await page.getByLabel('Choose files').setInputFiles(paths)
        assert.match(await errorShown(page), expected)
        await page.getByRole('button', { name: 'Close' }).click()
      }
      await openDemo(page)
      await profile.close()
    },
  },
  {
    name: 'a sharded model from picked files, and one served by address with ranges',
    async run({ browser }) {
      const place = quantizeInNode('demo', [
        '--method',
        'rtn',
        '--bits',
        '4',
        '--max-shard-size',
        '1MB',
      ])
      const site = await serveStudio([place])
      const { page, profile } = await visit(browser, site.url)
      const files = readdirSync(place).map((name) => path.join(place, name))
      assert.ok(files.filter((name) => name.endsWith('.safetensors')).length > 1)
      await page.getByLabel('Choose files').setInputFiles(files)
      await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
      assert.match(
        (await page.getByLabel('The opened model').textContent()) ?? '',
        /stored as\s*lowbit/,
      )
      let most = 0
      page.on('response', async (response) => {
        const { 'content-length': length = '0' } = response.headers()
        if (response.url().includes('/models/')) most = Math.max(most, Number(length))
      })
      await page.getByRole('button', { name: 'model', exact: true }).click()
      await page.waitForTimeout(1000)
      assert.ok(most > 0 && most < 200_000, `opening read ${most} bytes at once`)
      site.close()
      await profile.close()
    },
  },
]
