/** Where models come from, broken ones among them. */

import { strict as assert } from 'node:assert'
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { BrowserContext } from 'playwright-core'
import { inNode, recipe, type StudioCheck, sameWeights, visit } from './harness.ts'
import { quantizeInNode, serveStudio } from './site.ts'
import { temporaryFolder } from './temporary.ts'
import { errorShown, finished, openDemo, start, takeArchive, writeRecipe } from './user.ts'

const DEMO = path.resolve(import.meta.dirname, '../../../../packages/demo-model/model')
const HUB = 'https://huggingface.co'

/** The hub as the page meets it, with one model: the demo. */
async function pretendHub(profile: BrowserContext, id: string): Promise<{ most: number }> {
  const seen = { most: 0 }
  const headers = { 'access-control-allow-origin': '*' }
  const names = readdirSync(DEMO).filter((name) => /json$|^model.safetensors$/.test(name))
  await profile.route(`${HUB}/**`, async (route) => {
    const { pathname } = new URL(route.request().url())
    const name = pathname.split('/').at(-1) ?? ''
    if (pathname.startsWith(`/api/models/${id}/tree/main`)) {
      const json = names.map((path) => ({
        ...{ type: 'file', path, oid: '0', size: statSync(`${DEMO}/${path}`).size },
      }))
      return route.fulfill({ json, headers })
    }
    if (!pathname.startsWith(`/${id}/resolve/main/`) || !names.includes(name)) {
      return route.fulfill({ status: 404, json: { error: 'Repository not found' }, headers })
    }
    const whole = readFileSync(path.join(DEMO, name))
    const range = /^bytes=(\d+)-(\d+)$/.exec((await route.request().headerValue('range')) ?? '')
    const from = Number(range?.[1] ?? 0)
    const to = Math.min(Number(range?.[2] ?? whole.length - 1), whole.length - 1)
    const body = whole.subarray(from, to + 1)
    seen.most = Math.max(seen.most, body.length)
    const part = {
      ...{ 'content-range': `bytes ${from}-${to}/${whole.length}` },
      'access-control-expose-headers': 'content-range, content-length',
    }
    return route.fulfill({
      ...{ status: range ? 206 : 200, body },
      headers: { ...headers, ...(range && part), 'accept-ranges': 'bytes' },
    })
  })
  return seen
}

export const FILE_CHECKS: readonly StudioCheck[] = [
  {
    name: 'hostile and broken files are refused by name',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url)
      const good = (name: string): Buffer => readFileSync(path.join(DEMO, name))
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
        const place = temporaryFolder('hostile')
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
  {
    name: 'a model of the hub by its name, read in parts; a name that is none there',
    async run({ browser, url }) {
      const { page, profile } = await visit(browser, url, { serviceWorkers: 'block' })
      const seen = await pretendHub(profile, 'somebody/small-1')
      const open = async (id: string): Promise<void> => {
        await page.getByLabel('Hub name or address').fill(id)
        await page.getByRole('button', { name: 'Open', exact: true }).click()
      }
      await open('somebody/other')
      assert.match(await errorShown(page), /the hub did not give a model of that name/)
      await page.getByRole('button', { name: 'Close' }).click()
      await open('../../etc')
      assert.match(await errorShown(page), /there is no model in .*etc/)
      await page.getByRole('button', { name: 'Close' }).click()
      await open('somebody/small-1')
      await page.getByRole('button', { name: 'Choose a recipe' }).waitFor()
      assert.match((await page.getByLabel('The opened model').textContent()) ?? '', /small-1/)
      const size = statSync(path.join(DEMO, 'model.safetensors')).size
      assert.ok(seen.most > 0 && seen.most < size / 4, `opening read ${seen.most} bytes at once`)
      await writeRecipe(page, recipe('method: rtn\n    bits: 4'))
      await start(page, 'result')
      await finished(page)
      sameWeights(await takeArchive(page), inNode(['--method', 'rtn', '--bits', '4']))
      await profile.close()
    },
  },
]
