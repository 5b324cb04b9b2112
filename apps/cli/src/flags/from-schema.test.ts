import { gptq } from '@lowbit/quantizer-gptq'
import { Command } from 'commander'
import { expect, it } from 'vitest'
import * as z from 'zod'
import { addSchemaFlags, allowedValues, describeFlags, givenOptions, kebab } from './from-schema.ts'

const schema = z.object({
  groupSize: z.int().min(1).optional().describe('columns of a group'),
  order: z.enum(['activation', 'none']).default('activation').describe('order of columns'),
  damping: z.number().min(0).max(1).default(0.01).describe('share of the mean'),
  symmetric: z.boolean().optional().describe('no zero points'),
  nested: z.boolean().default(true).describe('scales of scales'),
  name: z.string().default('x').describe('a name'),
  table: z.array(z.number()).optional().describe('for recipes only'),
})

function parse(...words: string[]): Record<string, unknown> {
  const command = new Command().exitOverride().configureOutput({ outputError() {} })
  addSchemaFlags(command, 'Options:', schema)
  command.parse(words, { from: 'user' })
  return givenOptions(command, schema)
}

it('names a flag after its option', () => {
  expect(kebab('doubleQuantization')).toBe('double-quantization')
  expect(describeFlags(schema).map(({ flag }) => flag)).toEqual([
    '--group-size',
    '--order',
    '--damping',
    '--symmetric',
    '--nested',
    '--name',
  ])
})

it('reads numbers, booleans both ways, and names', () => {
  expect(parse('--group-size', '64', '--damping', '0.5')).toEqual({ groupSize: 64, damping: 0.5 })
  expect(parse('--symmetric')).toEqual({ symmetric: true })
  expect(parse('--no-symmetric', '--no-nested')).toEqual({ symmetric: false, nested: false })
  expect(parse('--order', 'none', '--name', 'y')).toEqual({ order: 'none', name: 'y' })
})

it('leaves out what was not given, so that the schema fills it in', () => {
  expect(parse()).toEqual({})
})

it('refuses what is no number and leaves limits to the schema', () => {
  expect(() => parse('--group-size', 'many')).toThrow(/--group-size.*not a number/)
  expect(parse('--group-size', '-3')).toEqual({ groupSize: -3 })
})

it('shows descriptions, limits, choices and defaults', () => {
  const command = new Command()
  addSchemaFlags(command, 'Options of sample', schema)
  const help = command.helpInformation()
  expect(help).toContain('Options of sample')
  expect(help).toMatch(
    /--order <name>\s+order of columns \(activation, none\) \(default: activation\)/,
  )
  expect(help).toMatch(/--damping <n>\s+share of the mean, 0 … 1 \(default: 0.01\)/)
  expect(help).toMatch(/--nested\s+scales of scales; --no-nested is the opposite/)
})

it('describes every option of a real method', () => {
  const flags = describeFlags(gptq.options)
  expect(flags.map(({ key }) => key)).toEqual(Object.keys(gptq.options.shape))
  expect(flags.every(({ summary }) => summary.length > 0)).toBe(true)
  const byKey = new Map(flags.map((flag) => [flag.key, allowedValues(flag)]))
  expect(byKey.get('bits')).toBe('1 … 8')
  expect(byKey.get('groups')).toBe('static | dynamic')
  expect(byKey.get('groupSize')).toBe('≥ 1')
})

it('leaves functions to library calls', () => {
  const withFunction = z.object({
    bits: z.int().describe('bits'),
    table: z.custom<() => number[]>().optional().describe('a function'),
  })
  expect(describeFlags(withFunction).map(({ key }) => key)).toEqual(['bits'])
})
