export { rtn, rtnOptions } from './rtn.ts'
