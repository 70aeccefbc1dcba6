class Function:
    name: str
    domain: str
